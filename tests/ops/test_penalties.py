"""Thresholds and penalties of the pursuit: every implementation against the definition."""

from __future__ import annotations

import pytest
import torch

from dbksvd.ops.pursuit.encode import sparse_encode


def make_problem(dtype=torch.float64, n=40, d=16, m=70):
    generator = torch.Generator().manual_seed(3)
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=generator).double(), dim=1)
    x = 2 * torch.randn(n, d, generator=generator).double()
    penalties = (0.1 * torch.rand(m, generator=generator).double()).tolist()
    return x.to(dtype), atoms.to(dtype), penalties


def assert_equal(found, expected, tolerance):
    torch.testing.assert_close(found.indices, expected.indices)
    torch.testing.assert_close(found.values, expected.values, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("implementation", ["batched", "cpu"])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
def test_threshold_agrees_with_reference(method, nonnegative, implementation):
    x, atoms, _ = make_problem()
    options = {"method": method, "nonnegative": nonnegative, "threshold": 1.5}
    expected = sparse_encode(x, atoms, 8, implementation="reference", **options)
    assert_equal(
        sparse_encode(x, atoms, 8, implementation=implementation, **options), expected, 1e-9
    )
    plain = sparse_encode(x, atoms, 8, **(options | {"threshold": 0.0}))
    assert expected.l0.sum() < plain.l0.sum()
    assert len(expected.l0.unique()) > 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("implementation", ["batched", "cpu"])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_penalties_agree_with_reference(nonnegative, implementation, refit, dtype):
    x, atoms, penalties = make_problem(dtype)
    options = {"nonnegative": nonnegative, "penalties": penalties, "refit": refit}
    expected = sparse_encode(x, atoms, 8, implementation="reference", **options)
    found = sparse_encode(x, atoms, 8, implementation=implementation, **options)
    assert_equal(found, expected, 2e-4 if dtype == torch.float32 else 1e-9)
    assert len(expected.l0.unique()) > 2


@pytest.mark.parametrize("implementation", ["reference", "batched", "cpu"])
def test_equal_penalties_are_a_threshold_in_proportion_to_the_sample(implementation):
    x, atoms, _ = make_problem()
    x = 3 * torch.nn.functional.normalize(x, dim=1)
    by_threshold = sparse_encode(x, atoms, 8, threshold=0.6, implementation=implementation)
    equal = [(0.6 / 3) ** 2] * len(atoms)
    by_penalties = sparse_encode(x, atoms, 8, penalties=equal, implementation=implementation)
    assert_equal(by_penalties, by_threshold, 1e-12)
    assert 1 < by_threshold.l0.double().mean() < 8


@pytest.mark.parametrize("implementation", ["reference", "batched", "cpu"])
def test_a_cheap_atom_is_preferred(implementation):
    atoms = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [1.0, -0.2]]), dim=1)
    x = torch.tensor([[3.0, 0.01]])
    options = {"nonnegative": True, "implementation": implementation, "refit": False}
    dear_first = sparse_encode(x, atoms, 1, penalties=[0.2, 0.1], **options)
    assert dear_first.indices.tolist() == [[1]]
    assert sparse_encode(x, atoms, 1, penalties=[1.0, 1.0], **options).l0.tolist() == [0]


@pytest.mark.parametrize("implementation", ["reference", "batched", "cpu"])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("refit", [False, True])
def test_an_atom_under_the_threshold_does_not_hide_a_dearer_one(implementation, nonnegative, refit):
    # the first atom has the largest gain, .16 against .36 − .26, but too small a product
    x, atoms = torch.tensor([[0.4, 0.6, 0.0]]), torch.eye(3)
    options = {"nonnegative": nonnegative, "refit": refit, "implementation": implementation}
    codes = sparse_encode(x, atoms, 1, penalties=[0, 0.5, 0.5], threshold=0.5, **options)
    assert codes.indices.tolist() == [[1]]
    torch.testing.assert_close(codes.values, torch.tensor([[0.6]]))


@pytest.mark.parametrize("implementation", ["reference", "batched", "cpu"])
@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
def test_a_threshold_is_not_rounded_to_the_samples_dtype(implementation, method):
    # .4 in float32 is a little more than .4 in float64
    x = torch.tensor([[0.4, 0.6, 0.1]])
    options = {"method": method, "implementation": implementation}
    above = sparse_encode(x, torch.eye(3), 3, threshold=0.4, **options)
    assert above.l0.tolist() == [2]
    equal = sparse_encode(x, torch.eye(3), 3, threshold=x[0, 0].item(), **options)
    assert equal.l0.tolist() == [1]


@pytest.mark.parametrize("implementation", ["reference", "batched", "cpu"])
@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60])
def test_a_threshold_has_the_unit_of_the_samples_and_penalties_have_none(implementation, unit):
    x, atoms, penalties = make_problem()
    options = {"implementation": implementation}
    for expected, found in (
        (
            sparse_encode(x, atoms, 6, threshold=1.5, **options),
            sparse_encode(unit * x, atoms, 6, threshold=1.5 * unit, **options),
        ),
        (
            sparse_encode(x, atoms, 6, penalties=penalties, **options),
            sparse_encode(unit * x, atoms, 6, penalties=penalties, **options),
        ),
    ):
        assert torch.equal(found.indices, expected.indices)
        torch.testing.assert_close(found.values / unit, expected.values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1.0}, "threshold: expected a finite number of at least 0, got -1.0"),
        ({"threshold": float("nan")}, "threshold: expected a finite number of at least 0, got nan"),
        ({"penalties": [1.0]}, "penalties: expected 70 numbers from 0 to 1, one for"),
        ({"penalties": [-1.0] * 70}, "penalties: expected 70 numbers from 0 to 1, .* -1"),
        ({"penalties": [1.5] * 70}, "penalties: expected 70 numbers from 0 to 1, .* 1.5"),
        ({"penalties": [float("nan")] * 70}, "penalties: expected 70 numbers from 0 to 1, .* nan"),
        (
            {"penalties": [1.0] * 70, "method": "ols"},
            "penalties: expected method 'mp' .* got 'ols'",
        ),
    ],
)
def test_bad_limits_are_refused(options, message):
    x, atoms, _ = make_problem()
    with pytest.raises(ValueError, match=message):
        sparse_encode(x, atoms, 3, **options)
