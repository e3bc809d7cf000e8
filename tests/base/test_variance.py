"""Variance explained against the formula in float64 NumPy, at any offset, scale and dtype."""

import numpy as np
import pytest
import torch

from dbksvd.base.variance import ExplainedVariance


def explain(x: np.ndarray, reconstruction: np.ndarray) -> float:
    # centred by one sample first: differences of near numbers are exact
    x, reconstruction = x.astype(np.longdouble), reconstruction.astype(np.longdouble)
    deviation = x - x[0]
    deviation -= deviation.mean(axis=0)
    return float(1 - ((x - reconstruction) ** 2).sum() / (deviation**2).sum())


def measure(x: torch.Tensor, reconstruction: torch.Tensor, block: int) -> float:
    variance = ExplainedVariance(x.shape[1])
    for rows, made in zip(x.split(block), reconstruction.split(block), strict=True):
        variance.add(rows, made)
    return variance.compute()


@pytest.mark.parametrize("block", [1, 7, 5000])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3, 1e5])
def test_it_is_the_formula_at_every_offset_and_scale(offset, scale, block):
    random = np.random.default_rng(0)
    x = scale * (random.normal(size=(5000, 6)) + offset * np.array([1, 0, -1, 0, 0, 0]))
    reconstruction = x + scale * 0.5 * random.normal(size=x.shape)
    x, reconstruction = x.astype(np.float32), reconstruction.astype(np.float32)
    got = measure(torch.from_numpy(x), torch.from_numpy(reconstruction), block)
    assert got == pytest.approx(explain(x, reconstruction), abs=1e-9)
    assert got == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_taken_as_they_are_stored(dtype):
    generator = torch.Generator().manual_seed(0)
    x = (100 + torch.randn(3000, 5, generator=generator)).to(dtype)
    made = (x + 0.3 * torch.randn(3000, 5, generator=generator).to(dtype)).to(dtype)
    expected = explain(x.double().numpy(), made.double().numpy())
    assert measure(x, made, 512) == pytest.approx(expected, abs=1e-9)


def test_one_sample_far_away_costs_no_digits():
    random = np.random.default_rng(1)
    x = random.normal(size=(1000, 4)).astype(np.float32)
    x[0] = 1e4
    made = (x + 0.5 * random.normal(size=x.shape)).astype(np.float32)
    got = measure(torch.from_numpy(x), torch.from_numpy(made), 100)
    assert got == pytest.approx(explain(x, made), abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e5])
def test_equal_samples_have_no_score(value):
    x = torch.full((3000, 7), value)
    for made in (x, x + 1):
        with pytest.raises(ValueError, match=r"at least 2 samples that differ, got 3000 that do"):
            measure(x, made, 100)


def test_a_last_bit_of_one_sample_is_variance():
    x = torch.full((3000, 7), 0.1)
    x[1234, 3] = torch.nextafter(x[0, 0], torch.tensor(1.0))
    assert measure(x, x, 100) == 1
    assert measure(x, torch.full_like(x, 0.1), 100) == pytest.approx(-1 / 2999, rel=1e-6)
