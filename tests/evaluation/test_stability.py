"""Agreement of seeds: copies agree wholly, random ones by chance, planted subspaces as spans only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.base.files import check_folder
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation.stability.coactivation import CodeColumns, Correlations
from dbksvd.evaluation.stability.compare import Seed, compare, match_random
from dbksvd.evaluation.stability.measure import ATOMS_FILE, measure_stability
from dbksvd.evaluation.stability.subspaces import measure_overlap

M, D, K = 40, 24, 3


def make_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_atoms(m: int, d: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(m, d, generator=make_generator(seed)), dim=1)


class Samples:
    """Held-out rows in memory."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def read(self, start: int, stop: int) -> Tensor:
        return self.x[start:stop]


def make_samples(atoms: Tensor, n: int = 500, *, signed: bool) -> Samples:
    """Return sums of three atoms each, with coefficients ≥ .5 or of both signs."""
    generator = make_generator(5)
    weights = torch.rand(n, len(atoms), generator=generator)
    kept = weights >= weights.topk(K, dim=1).values[:, -1:]
    codes = (0.5 + torch.rand(n, len(atoms), generator=generator)) * kept
    if signed:
        codes *= torch.where(torch.rand(n, len(atoms), generator=generator) < 0.5, -1.0, 1.0)
    return Samples(codes @ atoms)


def save(atoms: Tensor, folder: Path, *, signed: bool) -> Path:
    settings = PursuitSettings(k=K, method="omp", nonnegative=not signed)
    Dictionary(atoms, torch.zeros(atoms.shape[1]), settings).save(folder)
    return folder


def plain_codes(n_atoms: int) -> CodeColumns:
    """Return codes that use every atom."""
    indices = torch.arange(n_atoms)[:, None]
    return CodeColumns(SparseCodes(indices, torch.ones(n_atoms, 1), n_atoms))


@pytest.mark.parametrize("signed", [True, False])
def test_permuted_copy_agrees_wholly(tmp_path: Path, signed: bool):
    atoms = draw_atoms(M, D, seed=0)
    order = torch.randperm(M, generator=make_generator(1))
    signs = torch.where(torch.arange(M) % 3 == 0, -1.0, 1.0)[:, None] if signed else 1.0
    folders = {
        4: save(atoms, tmp_path / "a", signed=signed),
        7: save((signs * atoms)[order], tmp_path / "b", signed=signed),
    }
    seal = tmp_path / "out" / "stability.json"
    found = measure_stability(folders, make_samples(atoms, signed=signed), {"draws": 2}, seal)
    assert found["signed"] is signed
    assert found["rows"] == 500
    assert list(found["scores"]) == ["4", "7"]
    for scores in found["scores"].values():
        for name in ("pw_mcc", "mmcs", "used_pw_mcc", "shared_07", "shared_09"):
            assert scores[name] == pytest.approx(1, abs=1e-5), name
        for name in ("coactivation", "coactivation_shared_07", "coactivation_shared_09"):
            assert scores[name] == pytest.approx(1, abs=1e-3), name
        assert scores["unmatched_atoms"] == scores["unused_atoms"] == 0
        assert scores["unmatched_overlap"] is None
        assert 0.3 < scores["random_pw_mcc"] < scores["random_mmcs"] < 0.7
    assert found["histograms"]["seeds"]["4"][-1] == M
    assert sum(found["histograms"]["random"]) == 2 * 2 * M
    assert check_folder(seal) == found
    arrays = load_file(seal.with_name(ATOMS_FILE))
    assert arrays.keys() == {"seed4", "seed7"}
    for array in arrays.values():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, np.ones(M), atol=1e-5)


@pytest.mark.parametrize("signed", [True, False])
def test_random_dictionaries_agree_by_chance(tmp_path: Path, signed: bool):
    folders = {
        seed: save(draw_atoms(M, D, seed=10 + seed), tmp_path / str(seed), signed=signed)
        for seed in range(4)
    }
    samples = make_samples(draw_atoms(M, D, seed=0), signed=signed)
    found = measure_stability(folders, samples, {"draws": 20}, tmp_path / "stability.json")
    assert len(found["pairs"]) == 6
    for name in ("pw_mcc", "mmcs"):
        values = [scores[name] for scores in found["scores"].values()]
        assert np.mean(values) == pytest.approx(found["scores"]["0"][f"random_{name}"], abs=0.02)
    pairs = [one["pw_mcc"] for one in found["pairs"] if 2 in one["seeds"]]
    assert found["scores"]["2"]["pw_mcc"] == pytest.approx(np.mean(pairs))
    stability = load_file(tmp_path / ATOMS_FILE)["seed2"]
    assert stability.mean() == pytest.approx(np.mean(pairs), abs=1e-6)


def test_planted_planes_are_unstable_as_atoms_and_stable_as_spans():
    """Each seed draws two atoms anew in every one of 15 fixed planes; 10 other atoms stay."""
    d, planes = 200, 15
    basis = torch.linalg.qr(torch.randn(d, d, generator=make_generator(0)).double()).Q.float()
    fixed = basis[-10:]

    def make_seed(seed: int) -> Seed:
        inside = torch.randn(planes, 2, 2, generator=make_generator(seed))
        blocks = inside @ basis[: 2 * planes].reshape(planes, 2, d)
        atoms = torch.nn.functional.normalize(torch.cat([blocks.reshape(-1, d), fixed]), dim=1)
        return Seed(atoms, plain_codes(len(atoms)))

    found = compare(make_seed(1), make_seed(2), signed=False)
    scores = found.describe(0)
    assert found.by_atoms.spread(0)[-10:] == pytest.approx(np.ones(10), abs=1e-5)
    assert scores["shared_09"] < 0.5
    assert 10 < scores["unmatched_atoms"] <= 30
    assert scores["unmatched_overlap"] > 0.75
    assert scores["unmatched_overlap_floor"] <= 30 / d


def test_overlap_of_spans():
    basis = torch.linalg.qr(torch.randn(30, 30, generator=make_generator(3)).double()).Q
    mixed = torch.randn(9, 5, generator=make_generator(4)).double() @ basis[:5]
    assert measure_overlap(basis[:5], mixed) == pytest.approx((1, 5 / 30))
    assert measure_overlap(basis[:5], basis[5:12]) == pytest.approx((0, 7 / 30), abs=1e-12)
    assert measure_overlap(basis[:4], basis[2:8]) == pytest.approx((0.5, 6 / 30))
    assert measure_overlap(basis[:0], basis) is None
    assert measure_overlap(basis[:5], draw_atoms(40, 30, seed=0)) is None  # it spans everything
    drawn = [measure_overlap(draw_atoms(6, 30, s), draw_atoms(10, 30, s + 50)) for s in range(50)]
    assert np.mean([overlap for overlap, _ in drawn]) == pytest.approx(10 / 30, abs=0.02)


@pytest.mark.parametrize("signed", [True, False])
def test_correlations_are_those_of_the_dense_codes(signed: bool):
    generator = make_generator(0)
    dense = torch.randn(2, 60, 9, generator=generator)
    dense *= torch.rand(2, 60, 9, generator=generator) < 0.4
    dense[0, :, 3] = 0  # unused
    dense[1, :, 5] = 2.0  # never varies
    columns = [CodeColumns(SparseCodes.from_dense(one)) for one in dense]
    found = Correlations(*columns, signed=signed)
    assert found.shape == (9, 9)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.nan_to_num(np.corrcoef(*dense.numpy(), rowvar=False)[:9, 9:])
    expected = np.abs(expected) if signed else expected
    expected[:, 5] = 0
    np.testing.assert_allclose(found.read(2, 8).numpy(), expected[2:8], atol=1e-6)
    assert columns[0].is_used.tolist() == [place != 3 for place in range(9)]
    with pytest.raises(ValueError, match=r"as many samples on both sides, got \(60, 50\)"):
        Correlations(columns[0], CodeColumns(SparseCodes.from_dense(dense[0, :50])), signed=False)


def test_unused_atoms_are_counted_apart():
    atoms = draw_atoms(M, D, seed=0)
    other = atoms.clone()
    other[:5] = draw_atoms(5, D, seed=1)
    codes = SparseCodes(torch.arange(5, M)[:, None], torch.arange(5.0, M)[:, None], M)
    sides = [Seed(one, CodeColumns(codes)) for one in (atoms, other)]
    scores = compare(*sides, signed=False).describe(1)
    assert scores["unused_atoms"] == 5
    assert scores["used_pw_mcc"] == pytest.approx(1, abs=1e-6)
    assert scores["coactivation"] == pytest.approx(1, abs=1e-6)
    assert scores["pw_mcc"] < 0.98


def test_random_pairs_of_the_default_sizes_agree_as_measured():
    found = match_random(512, 384, signed=False, draws=1, seed=0)
    assert found[0].similarity.mean() == pytest.approx(0.148, abs=0.002)


def test_bad_input_is_named(tmp_path: Path):
    one = save(draw_atoms(M, D, seed=0), tmp_path / "one", signed=False)
    other = save(draw_atoms(M, D + 1, seed=0), tmp_path / "other", signed=False)
    samples, seal = make_samples(draw_atoms(M, D, seed=0), signed=False), tmp_path / "s.json"
    with pytest.raises(ValueError, match="dictionaries: expected at least 2 seeds, got 1"):
        measure_stability({0: one}, samples, {}, seal)
    with pytest.raises(ValueError, match=r"dictionaries: expected one width, got \[24, 25\]"):
        measure_stability({0: one, 1: other}, samples, {}, seal)
    samples.x[300, 2] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinity in held-out rows from 0 on"):
        measure_stability({0: one, 1: one}, samples, {}, seal)
    seal.write_text("mine")
    with pytest.raises(ValueError, match="expected no file"):
        measure_stability({0: one, 1: one}, samples, {}, seal)
    assert seal.read_text() == "mine"
