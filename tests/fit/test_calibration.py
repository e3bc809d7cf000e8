"""A mean number of non-zeros: thresholds that are found, followed and kept."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from dbksvd import DBKSVD, Dictionary
from dbksvd.dictionaries.dictionary import PursuitSettings, encode_with
from dbksvd.fit.ksvd.calibration import Calibration

N_ATOMS, WIDTH, L0 = 48, 24, 3


def make_samples(n: int, seed: int = 0) -> torch.Tensor:
    """Return samples of one to eight features each: what a fixed number fits badly."""
    generator = torch.Generator().manual_seed(seed)
    features = normalize(torch.randn(N_ATOMS, WIDTH, generator=torch.Generator().manual_seed(9)))
    rates = torch.rand(n, 1, generator=generator) ** 3 * 0.2
    fires = torch.rand(n, N_ATOMS, generator=generator) < rates
    return (fires * (1 + torch.rand(n, N_ATOMS, generator=generator))) @ features


def find_l0(dictionary: Dictionary, x: torch.Tensor) -> float:
    return float(dictionary.encode(x).l0.double().mean())


@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
def test_threshold_is_the_least_that_keeps_the_mean(method):
    x = make_samples(3000)
    atoms = normalize(torch.randn(N_ATOMS, WIDTH, generator=torch.Generator().manual_seed(1)))
    settings = PursuitSettings(9, method, nonnegative=True)
    found = Calibration(x).set_threshold(atoms, L0, settings)
    assert encode_with(x, atoms, found).l0.double().mean() == pytest.approx(L0, abs=0.05)
    assert encode_with(x, atoms, found).l0.double().mean() <= L0


def test_threshold_follows_what_the_last_iteration_missed():
    atoms = torch.eye(4)
    calibration = Calibration(torch.eye(4))
    settings = PursuitSettings(9)
    row = {"n_atoms": 4, "threshold": 2.0, "l0": 6.0}
    assert calibration.follow([row], atoms, 3, settings).threshold == pytest.approx(2 * 2**0.3)
    assert calibration.follow([row | {"l0": 3.0}], atoms, 3, settings).threshold == 2
    assert 1 <= calibration.follow([row | {"l0": 0.0}], atoms, 3, settings).threshold < 2


def test_orthogonal_pursuits_have_at_most_the_width_and_mp_may_have_more():
    l0 = WIDTH // 2  # three times as many are more than the width
    assert 3 * l0 > WIDTH
    x = torch.randn(2000, WIDTH, generator=torch.Generator().manual_seed(2))
    for method, most in (("ols", WIDTH), ("omp", WIDTH), ("mp", 3 * l0)):
        model = DBKSVD(N_ATOMS, l0, sparsity="mean", method=method, max_iter=2).fit(x)
        assert model.dictionary_.settings.k == most
        assert find_l0(model.dictionary_, x) == pytest.approx(l0, rel=0.1)
        assert torch.equal(model.transform(x, grouped=True).values, model.transform(x).values)


@pytest.mark.parametrize("init", ["samples", "doubling"])
def test_fit_has_the_mean_and_explains_more(init, tmp_path):
    x, heldout = make_samples(6000), make_samples(2000, seed=1)
    options = {"nonnegative": True, "max_iter": 20, "init": init}
    fixed = DBKSVD(N_ATOMS, L0, **options).fit(x, heldout=heldout)
    mean = DBKSVD(N_ATOMS, L0, sparsity="mean", **options).fit(x, heldout=heldout)
    assert all(row["l0"] == pytest.approx(L0, rel=0.2) for row in mean.log_[5:])
    assert find_l0(mean.dictionary_, heldout) == pytest.approx(L0, rel=0.1)
    assert int(mean.dictionary_.encode(heldout).l0.max()) > L0
    assert mean.log_[-1]["fve_heldout"] > fixed.log_[-1]["fve_heldout"] + 0.01

    mean.dictionary_.save(tmp_path)
    loaded = Dictionary.load(tmp_path)
    assert loaded.settings == mean.dictionary_.settings
    assert torch.equal(loaded.encode(heldout).values, mean.transform(heldout).values)
