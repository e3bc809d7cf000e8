"""A consensus keeps the atoms that seeds share, codes as its bases do, and begins from the right."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rows import Rows
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from dbksvd import DBKSVD
from dbksvd.base.files import read_json, write_json
from dbksvd.base.settings import SettingsError, parse
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.fit.consensus.method import METHOD, check_base, fit
from dbksvd.fit.consensus.pool import pool_atoms, take_groups
from dbksvd.fit.consensus.settings import ConsensusSettings
from dbksvd.fit.method import Base, FitSizes
from dbksvd.fit.registry import find_method
from dbksvd.fit.task import FitTask

M, D, K = 24, 16, 3


def draw_atoms(count: int = M, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(count, D, generator=torch.Generator().manual_seed(seed))
    return normalize(drawn, dim=1)


def draw_samples(atoms: torch.Tensor, n: int = 3000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    fires = torch.rand(n, len(atoms), generator=generator).argsort(dim=1) < K
    values = 1 + torch.rand(n, len(atoms), generator=generator)
    return (fires * values) @ atoms + 0.5


def shuffle(atoms: torch.Tensor, seed: int, *, signed: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shuffled = atoms[torch.randperm(len(atoms), generator=generator)]
    signs = torch.randint(0, 2, (len(atoms), 1), generator=generator) * 2.0 - 1
    return shuffled * signs if signed else shuffled


def make_task(x: torch.Tensor, bases: list[Path], folder: Path, **settings: object) -> FitTask:
    return FitTask(
        *(Rows(x[:2500]), Rows(x[2500:]), M, K, 0),
        parse(METHOD.settings, {"of": "other", "merge_cosine": 0.9, **settings}),
        *(torch.device("cpu"), folder / "checkpoint"),
        bases=tuple(bases),
    )


def save_all(atoms: list[torch.Tensor], folder: Path, settings: PursuitSettings) -> list[Path]:
    paths = []
    for number, one in enumerate(atoms):
        bias = torch.full((D,), 0.5)
        Dictionary(one, bias, settings).save(folder / str(number))
        paths.append(folder / str(number))
    return paths


def match(found: torch.Tensor, true: torch.Tensor, *, signed: bool = False) -> torch.Tensor:
    cosines = found @ true.T
    return (cosines.abs() if signed else cosines).amax(dim=0)


@pytest.mark.parametrize("signed", [False, True])
def test_permuted_copies_are_their_own_consensus(signed: bool):
    atoms = draw_atoms()
    copies = [shuffle(atoms, seed, signed=signed) for seed in range(4)]
    pool = pool_atoms(copies, 0.95, nonnegative=not signed)
    assert pool.fits.tolist() == [4] * M
    torch.testing.assert_close(match(pool.atoms, atoms, signed=signed), torch.ones(M))
    torch.testing.assert_close(pool.votes, torch.full((M,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(pool.weights.abs(), torch.ones(M, 4, dtype=torch.float64))
    assert (pool.weights < 0).any() == signed
    # each atom of each dictionary is in one group
    assert sorted(pool.members.flatten().tolist()) == list(range(4 * M))


def test_signs_matter_where_codes_are_not_negative():
    atoms = draw_atoms(6)
    pool = pool_atoms([atoms, -atoms], 0.9, nonnegative=True)
    assert pool.fits.tolist() == [1] * 12
    assert pool_atoms([atoms, -atoms], 0.9, nonnegative=False).fits.tolist() == [2] * 6


def test_outliers_come_last_and_are_dropped():
    atoms = draw_atoms()
    pools = [torch.cat([shuffle(atoms, seed)[:-1], draw_atoms(1, seed + 10)]) for seed in range(5)]
    pool = pool_atoms(pools, 0.95, nonnegative=True)
    assert (pool.fits[:M] >= 3).all()
    assert (pool.fits[M:] == 1).all()
    assert pool.fits.sum() == 5 * M
    torch.testing.assert_close(match(take_groups(pool, pools, M), atoms), torch.ones(M))


def test_a_mean_is_nearer_than_its_members():
    atoms = draw_atoms()
    noisy = [normalize(atoms + 0.3 * draw_atoms(M, seed), dim=1) for seed in range(10, 18)]
    pool = pool_atoms(noisy, 0.8, nonnegative=True)
    assert pool.fits.tolist() == [8] * M
    assert match(pool.atoms, atoms).min() > match(noisy[0], atoms).mean()
    # the average of anything that belongs to the atoms follows the same groups
    means = normalize(pool.average(torch.cat(noisy)), dim=1)
    torch.testing.assert_close(means, pool.atoms, rtol=0, atol=1e-6)


def test_a_wide_fan_is_no_group():
    angles = torch.arange(0, 90, 10) * math.pi / 180  # each 10 degrees from the next
    fan = torch.stack([angles.cos(), angles.sin()], dim=1)
    pool = pool_atoms([fan[::2], fan[1::2]], math.cos(math.radians(11)), nonnegative=True)
    # at most two neighbours pair up, where a chain of near ones would be one group
    assert 5 <= len(pool.atoms) <= 6
    assert pool.fits.sum() == 9


def test_too_few_groups_are_filled_with_what_they_stand_for_least():
    atoms = draw_atoms(4)
    off = normalize(atoms[2] + 0.1 * draw_atoms(1, 9)[0], dim=0)
    copies = [atoms, torch.cat([atoms[:3], off[None]])]
    pool = pool_atoms(copies, 0.9, nonnegative=True)
    assert len(pool.atoms) == 4
    filled = take_groups(pool, copies, 5)
    torch.testing.assert_close(filled[4], off)


@pytest.mark.parametrize("signed", [False, True])
def test_consensus_of_noisy_copies_finds_the_atoms(tmp_path: Path, signed: bool):
    atoms = draw_atoms()
    noisy = [
        normalize(shuffle(atoms, s, signed=signed) + 0.1 * draw_atoms(M, s + 5), dim=1)
        for s in range(3)
    ]
    coding = PursuitSettings(K, "ols", nonnegative=not signed)
    bases = save_all(noisy, tmp_path, coding)
    task = make_task(draw_samples(atoms), bases, tmp_path)
    result = fit(task)
    assert match(result.dictionary.atoms, atoms, signed=signed).min() > 0.97
    assert result.dictionary.settings == coding
    assert result.summary["shared"] == [0, 0, M]
    assert result.log[-1]["fve_heldout"] > 0.9
    result.save(tmp_path / "saved")
    again = fit(task)
    assert torch.equal(again.dictionary.atoms, result.dictionary.atoms)


def test_mean_sparsity_stays(tmp_path: Path):
    x = draw_samples(draw_atoms())
    bases = []
    for seed in range(2):
        model = DBKSVD(M, K, sparsity="mean", nonnegative=True, max_iter=3, seed=seed).fit(x)
        model.dictionary_.save(tmp_path / str(seed))
        bases.append(tmp_path / str(seed))
    result = fit(make_task(x, bases, tmp_path))
    codes = result.dictionary.encode(x)
    assert abs(float(codes.l0.double().mean()) - K) < 0.3
    assert codes.l0.max() > K
    assert result.summary["mean_k"] == K


def test_penalties_and_bias_are_averaged_and_atoms_stay(tmp_path: Path):
    atoms = draw_atoms()
    for number, (shift, penalty) in enumerate([(0.0, 0.1), (0.2, 0.3)]):
        settings = PursuitSettings(
            3 * K, nonnegative=True, threshold=1 + shift, penalties=(penalty,) * M
        )
        Dictionary(shuffle(atoms, number), torch.full((D,), shift), settings).save(
            tmp_path / str(number)
        )
    bases = [tmp_path / "0", tmp_path / "1"]
    found = fit(make_task(draw_samples(atoms), bases, tmp_path)).dictionary
    torch.testing.assert_close(match(found.atoms, atoms), torch.ones(M))
    torch.testing.assert_close(found.bias, torch.full((D,), 0.1))
    assert found.settings.threshold == pytest.approx(1.1)
    assert found.settings.penalties == pytest.approx((0.2,) * M)


def test_interrupted_refit_goes_on(tmp_path: Path):
    class CutOff(Rows):
        reads = 0

        def read(self, start, stop):
            self.reads += 1
            if self.reads == self.fail_at:
                raise OSError("cable pulled")
            return super().read(start, stop)

    atoms = draw_atoms()
    noisy = [normalize(atoms + 0.2 * draw_atoms(M, s + 5), dim=1) for s in range(2)]
    bases = save_all(noisy, tmp_path, PursuitSettings(K, "ols"))
    x = torch.cat([draw_samples(atoms)] * 4)

    def make(folder: str) -> FitTask:
        task = make_task(x, bases, tmp_path / folder, refit_iter=6, checkpoint_seconds=0.0)
        task.train = CutOff(x[:4000])
        task.train.fail_at = 10**9
        return task

    whole = fit(make("whole"))
    task = make("cut")
    task.train.fail_at = 6
    with pytest.raises(OSError, match="cable pulled"):
        fit(task)
    task.train.fail_at = 10**9
    resumed = fit(task)
    assert torch.equal(resumed.dictionary.atoms, whole.dictionary.atoms)
    assert len(resumed.log) == 6 + 2


def test_fits_of_two_kinds_are_refused(tmp_path: Path):
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    bases = save_all([draw_atoms()], tmp_path, PursuitSettings(K))
    TopKSAE(TopKSAEConfig(d_in=D, d_sae=M, k=K)).save_model(tmp_path / "sae")
    task = make_task(draw_samples(draw_atoms()), [*bases, tmp_path / "sae"], tmp_path)
    with pytest.raises(ValueError, match=r"^of: expected fits of architecture .* dbksvd, topk$"):
        fit(task)


def test_pools_of_two_seeds_have_no_fit_in_common():
    settings = parse(METHOD.settings, {"of": "dbksvd", "seeds": [3, 5, 4]})
    base = METHOD.find_base(settings)
    assert base == Base("of", "dbksvd", (3, 5, 4))
    assert base.list_seeds(0) == (3, 5, 4)
    assert base.list_seeds(2) == (9, 11, 10)
    lists = [set(base.list_seeds(seed)) for seed in range(6)]
    assert len(set().union(*lists)) == sum(map(len, lists))
    assert Base("of", "sae").list_seeds(7) == (7,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": [1]}, r"^seeds: expected at least 2 items, got \[1\]$"),
        ({"seeds": [1, 2, 1]}, r"^seeds: expected no repeats, got \[1, 2, 1\]$"),
        ({"merge_cosine": 1.5}, r"^merge_cosine: expected at most 1, got 1\.5$"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        parse(METHOD.settings, {"of": "x", **settings})


def test_what_cannot_be_pooled_is_refused():
    settings = ConsensusSettings(of="other")
    for good in (
        parse(find_method("dbksvd").settings, {}),
        parse(find_method("ksvd").settings, {}),
        parse(find_method("grown").settings, {}),
        parse(find_method("sae").settings, {"architecture": "topk"}),
    ):
        check_base(settings, good)
    for bad in (
        parse(find_method("dbksvd").settings, {"groups": 4}),
        parse(find_method("sae").settings, {"architecture": "switch"}),
        parse(find_method("random").settings, {}),
        parse(METHOD.settings, {"of": "x"}),
    ):
        with pytest.raises(ValueError, match=r"^of: expected a method whose .* got 'other'$"):
            check_base(settings, bad)


def test_too_many_pooled_atoms_are_refused():
    settings = ConsensusSettings(of="other")
    METHOD.check_sizes(settings, 4000, 8)
    with pytest.raises(ValueError, match=r"^seeds: expected at most 20000 .* 5 fits of 4001 atoms"):
        METHOD.check_sizes(settings, 4001, 8)


def test_plan_counts_distances_and_refit():
    settings = ConsensusSettings(of="other", seeds=[0, 1], refit_iter=2)
    work = METHOD.plan(settings, FitSizes(32, 4, 8, n_train=1000, n_heldout=0))
    # four iterations on all 1000 samples, and the cosines of 64 atoms
    assert work.products == 4000 * 2 * 8 * 32 + 2 * 8 * 64**2
    assert METHOD.label(settings) == "consensus of 2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[torch.Tensor, Path]:
    """Samples, and the folder of a TopK SAE that was trained on them."""
    x = draw_samples(draw_atoms())
    folder = tmp_path_factory.mktemp("trained")
    method = find_method("sae")
    told = {"architecture": "topk", "training_samples": 20_000, "batch_size": 100}
    task = make_task(x, [], folder)
    method.fit(replace(task, settings=parse(method.settings, told))).save(folder / "0")
    return x, folder / "0"


def copy_permuted(source: Path, target: Path, seed: int, **changes: object) -> Path:
    """Copy a trained SAE with its latents in another order, and change what its seal says."""
    shutil.copytree(source, target)
    weights = load_file(source / "sae_weights.safetensors")
    order = torch.randperm(M, generator=torch.Generator().manual_seed(seed))
    moved = {"W_enc": weights["W_enc"][:, order], "b_enc": weights["b_enc"][order]}
    moved |= {"W_dec": weights["W_dec"][order], "b_dec": weights["b_dec"]}
    save_file(
        {name: w.contiguous() for name, w in moved.items()}, target / "sae_weights.safetensors"
    )
    seal = read_json(source / "fit.json")
    write_json(target / "fit.json", seal | {"settings": seal["settings"] | changes})
    return target


def test_saes_go_on_from_their_pooled_weights(trained, tmp_path: Path):
    x, source = trained
    # at a rate of nearly nothing the pool of permuted copies is the SAE itself
    bases = [copy_permuted(source, tmp_path / str(s), s, lr=1e-12) for s in range(3)]
    result = fit(make_task(x, bases, tmp_path, training_samples=1000))
    assert result.summary["shared"] == [0, 0, M]
    result.save(tmp_path / "saved")
    before, after = (load_dictionary(folder) for folder in (source, tmp_path / "saved"))
    rows = x[2500:]
    torch.testing.assert_close(
        after.decode(after.encode(rows)), before.decode(before.encode(rows)), rtol=0, atol=1e-3
    )


def test_pooled_saes_train_a_quarter_as_long(trained, tmp_path: Path):
    x, source = trained
    bases = [copy_permuted(source, tmp_path / str(s), s) for s in range(2)]
    result = fit(make_task(x, bases, tmp_path))
    assert result.summary["settings"]["training_samples"] == 5_000
    before = read_json(source / "fit.json")
    assert result.log[-1]["fve_heldout"] > 0.5
    assert before["samples_seen"] == 20_000
    # at equal samples and seconds, a consensus is charged with the fits that it pools
    assert result.summary["samples_seen"] == result.log[-1]["samples_seen"] == 45_000
    assert result.summary["seconds"] == result.log[-1]["seconds"] > 2 * before["seconds"]
    assert result.log[0]["samples_seen"] > 40_000
