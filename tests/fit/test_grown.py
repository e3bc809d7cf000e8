"""The grown dictionary finds planted features, parents among them, and codes with penalties."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rows import Rows
from simulated_cuda import IS_REAL, leave_out_kernels, questions, use_cuda
from torch.nn.functional import normalize

from dbksvd.base.codes import SparseCodes
from dbksvd.base.work import Work
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings, encode_with
from dbksvd.fit.grown.candidates import choose_apart, find_general_atoms, find_quantiles
from dbksvd.fit.grown.cleaning import clean_atoms_
from dbksvd.fit.grown.coactive import find_coactive, find_coactive_pairs, share_atoms_
from dbksvd.fit.grown.method import METHOD, fit
from dbksvd.fit.grown.penalties import find_usage, set_penalties
from dbksvd.fit.grown.plan import (
    count_cleaning_rows,
    count_joining,
    count_polish_rows,
    count_round_rows,
    plan_settling,
)
from dbksvd.fit.grown.settings import GrownSettings
from dbksvd.fit.grown.settling import settle_
from dbksvd.fit.grown.state import begin_growth
from dbksvd.fit.method import Base, FitSizes
from dbksvd.fit.task import FitTask

N_FEATURES, WIDTH = 24, 32


@pytest.fixture(scope="module")
def planted():
    """Features, and samples in which the first one comes with one of the next three, half alone."""
    generator = torch.Generator().manual_seed(0)
    features = torch.linalg.qr(torch.randn(WIDTH, N_FEATURES, generator=generator))[0].T
    draws = torch.rand(12_000, N_FEATURES, generator=generator)
    fires = draws < 0.08
    fires[:, 0] = draws[:, 0] < 0.4
    child = torch.randint(1, 7, (len(draws),), generator=generator)  # 4, 5 and 6 are no child
    for place in (1, 2, 3):
        fires[:, place] = fires[:, 0] & (child == place)
    values = 4.5 + 0.5 * torch.randn(draws.shape, generator=generator)
    noise = 0.1 * torch.randn(len(draws), WIDTH, generator=generator)
    return features, (values * fires) @ features + noise + 0.3


def make_task(x: torch.Tensor, base: Path | None = None, **settings: object) -> FitTask:
    return FitTask(
        Rows(x[:10_000]), Rows(x[10_000:]), N_FEATURES, 3, 0, {"algorithm": "grown", **settings},
        torch.device("cpu"), Path("unused"), bases=() if base is None else (base,),
    )  # fmt: skip


@pytest.fixture(scope="module")
def grown(planted):
    return fit(make_task(planted[1], coactive_share=0.0))


def test_finds_the_features(planted, grown):
    found = (grown.dictionary.atoms @ planted[0].T).amax(dim=0)
    assert (found > 0.9).sum() >= N_FEATURES - 1
    assert found[0] > 0.9
    assert grown.log[-1]["n_atoms"] == N_FEATURES
    assert grown.log[-1]["fve_heldout"] > 0.9


def test_codes_are_not_negative_and_as_many_as_asked_on_average(planted, grown):
    codes = grown.dictionary.encode(planted[1][10_000:])
    assert (codes.values >= 0).all()
    assert abs(float(codes.l0.double().mean()) - 3) < 0.4
    assert codes.l0.max() > 4


def test_same_seed_same_dictionary_and_it_survives_saving(planted, grown, tmp_path):
    again = fit(make_task(planted[1], coactive_share=0.0)).dictionary
    assert torch.equal(again.atoms, grown.dictionary.atoms)
    again.save(tmp_path / "dictionary")
    loaded = Dictionary.load(tmp_path / "dictionary")
    assert loaded.settings == grown.dictionary.settings
    assert len(loaded.settings.penalties) == N_FEATURES
    x = planted[1][:50]
    assert torch.equal(loaded.encode(x).values, grown.dictionary.encode(x).values)


def test_saelens_codes_alike(planted, grown, tmp_path):
    from sae_lens import SAE

    import dbksvd.dictionaries.registration  # noqa: F401

    grown.dictionary.save(tmp_path / "sae")
    sae = SAE.load_from_disk(str(tmp_path / "sae"))
    x = planted[1][:50]
    torch.testing.assert_close(sae.encode(x), grown.dictionary.encode(x).to_dense())


def test_polishes_another_dictionary(planted, tmp_path):
    features, x = planted
    generator = torch.Generator().manual_seed(1)
    rough = normalize(features + 0.15 * torch.randn(features.shape, generator=generator), dim=1)
    bias = x.mean(dim=0) * 0
    Dictionary(rough, bias, PursuitSettings(3)).save(tmp_path / "base")
    settings = {"polish_iter": 3, "coactive_share": 0.0, "warm_start": "base"}
    result = fit(make_task(x, tmp_path / "base", **settings))
    before, after = ((d * features).sum(1).mean() for d in (rough, result.dictionary.atoms))
    assert after > before + 0.1
    assert len(result.log) == 3


class Interrupted(Rows):
    """Breaks off at the read with number `fail_at`."""

    fail_at, reads = 10**9, 0

    def read(self, start: int, stop: int) -> torch.Tensor:
        self.reads += 1
        if self.reads == self.fail_at:
            raise OSError("cable pulled")
        return super().read(start, stop)


def test_an_interrupted_growth_goes_on_and_ends_with_the_same_bytes(
    planted, grown, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    source = Interrupted(planted[1][:10_000])
    task = make_task(planted[1], coactive_share=0.0, checkpoint_seconds=0)
    task.train, task.checkpoint = source, tmp_path / "work"
    for fail_at in (8, 14):  # in the second round, and some rounds later
        source.reads, source.fail_at = 0, fail_at
        with pytest.raises(OSError, match="cable pulled"):
            fit(task)
    source.reads, source.fail_at = 0, 10**9
    again = fit(task)
    assert caplog.text.count("going on with") == 2
    assert len(again.log) == len(grown.log)
    assert again.log[-1]["samples_seen"] == grown.log[-1]["samples_seen"]
    for result, name in ((grown, "unbroken"), (again, "resumed")):
        result.dictionary.save(tmp_path / name)
    for name in ("sae_weights.safetensors", "cfg.json"):
        expected = (tmp_path / "unbroken" / name).read_bytes()
        assert (tmp_path / "resumed" / name).read_bytes() == expected


def test_general_directions_come_first(planted):
    features, x = planted
    residual = x - 0.3
    atoms = find_general_atoms(residual, 1, 2.0, 32, torch.Generator().manual_seed(0))
    assert atoms.shape == (1, WIDTH)
    assert int((features @ atoms[0]).argmax()) == 0


@pytest.mark.parametrize("share", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 100, 4096])
def test_quantiles_are_those_of_torch(n: int, share: float):
    products = torch.randn(n, 7, generator=torch.Generator().manual_seed(n))
    assert torch.equal(find_quantiles(products, share), products.quantile(share, dim=0))


def test_candidates_that_are_alike_count_once():
    candidates = normalize(torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [-0.1, 1]]), dim=1)
    chosen = choose_apart(candidates, torch.tensor([2.0, 3.0, 1.9, 0.1]), 4)
    torch.testing.assert_close(chosen, candidates[[1, 2]])


def test_an_atom_is_given_a_share_of_its_co_active_atom():
    atoms = torch.eye(3)
    indices = torch.tensor([[0, 1], [0, 1], [0, 2], [0, 0], [2, 0]])
    values = torch.tensor([[1.0, 1], [1, 1], [1, 1], [1, 0], [1, 0]])
    share_atoms_(atoms, SparseCodes(indices, values, 3), 0.5)
    expected = normalize(torch.tensor([[1.0, 0, 0], [0.5, 1, 0], [0, 0, 1]]), dim=1)
    torch.testing.assert_close(atoms, expected)


def test_cleaning_takes_out_features_without_atoms():
    generator = torch.Generator().manual_seed(0)
    features = torch.linalg.qr(torch.randn(16, 6, generator=generator))[0].T
    draw = torch.rand(4000, generator=generator)
    values = 4 + 0.5 * torch.randn(4000, 2, generator=generator)
    # feature 0 always, with 1 (a quarter), 2 (a quarter), or alone; 3 is another atom
    x = values[:, :1] * features[0]
    for child, low in ((1, 0.0), (2, 0.25)):
        fires = (draw >= low) & (draw < low + 0.25)
        x[fires] += values[fires, 1:] * features[child]
    x += 0.1 * torch.randn(x.shape, generator=generator)
    rare = torch.zeros(4000, dtype=torch.bool)
    rare[:20] = True
    x[rare] += 4 * features[3]
    atoms = normalize(features[0] + 0.25 * (features[1] + features[2]), dim=0)[None]
    atoms = torch.cat([atoms, normalize(features[3:4] + 0.2 * features[4:5], dim=1)])
    before = atoms.clone()
    z = torch.stack([x @ atoms[0], torch.where(rare, x @ atoms[1], 0)], dim=1)
    codes = SparseCodes(torch.tensor([[0, 1]]).expand(4000, 2).contiguous(), z, 2)
    clean_atoms_(x, codes, atoms, 0.3, torch.tensor([False, True]))
    assert torch.equal(atoms, before)
    clean_atoms_(x, codes, atoms, 0.3, torch.tensor([True, True]))
    assert float(before[0] @ features[0]) < 0.95
    assert float(atoms[0] @ features[0]) > 0.99
    assert torch.equal(atoms[1], before[1])  # too few samples


def test_cleaning_asks_a_device_once_an_atom():
    n, m = 900, 10
    generator = torch.Generator().manual_seed(0)
    atoms = normalize(torch.randn(m, 6, generator=generator), dim=1)
    indices = torch.rand(n, m, generator=generator).argsort(dim=1)[:, :3].contiguous()
    codes = SparseCodes(indices, 1 + torch.rand(n, 3, generator=generator), m)
    x = torch.randn(n, 6, generator=generator)
    asked = []
    with use_cuda() as device, leave_out_kernels():
        there = SparseCodes(codes.indices.to(device), codes.values.to(device), m)
        for chosen in (torch.zeros(m, dtype=torch.bool), torch.ones(m, dtype=torch.bool)):
            expected, found = atoms.clone(), atoms.to(device)
            clean_atoms_(x, codes, expected, 0.5, chosen)
            questions.clear()
            clean_atoms_(x.to(device), there, found, 0.5, chosen.to(device))
            asked.append(questions.total())
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)
    if not IS_REAL:  # the real one is not watched
        assert asked == [4, 4 + m]


def test_co_active_pairs_are_of_a_rarer_atom_and_a_likely_more_frequent_one():
    indices = torch.tensor([[0, 1, 3], [0, 1, 3], [2, 1, 0], [2, 0, 0], [1, 0, 0]])
    values = torch.tensor([[1.0, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]])
    codes = SparseCodes(indices, values, 5)  # 0 is always with 1, 3 with both, 2 half the time
    i, j, probability = find_coactive_pairs(codes)
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 1), (3, 0), (3, 1)]
    assert (probability == 1).all()
    assert find_coactive(codes).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("counted", [1 << 26, 0])
def test_co_active_pairs_are_those_of_the_dense_codes(monkeypatch, counted):
    monkeypatch.setattr("dbksvd.fit.grown.coactive.MOST_COUNTED", counted)
    generator = torch.Generator().manual_seed(0)
    dense = torch.zeros(200, 12)
    for row in dense:
        used = torch.randperm(12, generator=generator)[
            : int(torch.randint(0, 6, (1,), generator=generator))
        ]
        row[used] = 1.0
    dense[:, 3] += (dense[:, 7] > 0) * 1.0  # whenever 7 is used, so is 3
    codes = SparseCodes.from_dense(dense, 7)
    together = (dense != 0).double().T @ (dense != 0).double()
    probability, usage = together / together.diagonal()[:, None], together.diagonal()
    expected = torch.nonzero((probability > 0.6) & (usage[None] > usage[:, None]))
    i, j, found = find_coactive_pairs(codes)
    assert [7, 3] in expected.tolist()
    assert torch.stack([i, j], dim=1).tolist() == expected.tolist()
    torch.testing.assert_close(found.double(), probability[i, j], check_dtype=False)


def test_settling_frees_atoms_without_a_co_active_one(planted):
    """Features that are rough: free ones come near, those of the family stay where they are."""
    features, x = planted
    generator = torch.Generator().manual_seed(1)
    rough = normalize(features + 0.1 * torch.randn(features.shape, generator=generator), dim=1)
    task, settings = make_task(x), GrownSettings(damping=0.0, settle_iter=20)
    growth = begin_growth(task, settings)
    growth.atoms, growth.bias = rough.clone(), torch.full((WIDTH,), 0.3)
    settle_(growth, task, settings)
    # held ones are made unit again, which may move their last digit
    assert torch.allclose(growth.atoms[:4], rough[:4], rtol=0, atol=1e-6)
    cosines = (growth.atoms * features).sum(1)
    assert cosines[4:].min() > 0.95 > (rough * features).sum(1)[4:].mean()
    sizes = [row["samples_seen"] for row in growth.log]
    assert len(sizes) == 16 + 4  # of 24 atoms 20 are free
    assert sizes[1] - sizes[0] == 2048


def test_settling_codes_with_k_on_average_and_picks_no_noise(planted):
    features, x = planted  # 2.2 fire on a sample
    for k, l0 in ((1, 1.0), (4, 2.2)):
        task, settings = replace(make_task(x), k=k), GrownSettings(settle_iter=20)
        growth = begin_growth(task, settings)
        growth.atoms, growth.bias = features.clone(), torch.full((WIDTH,), 0.3)
        growing = growth.pursuit
        settle_(growth, task, settings)
        assert abs(growth.log[-1]["l0"] - l0) < 0.1
        assert growth.pursuit == growing


def test_settling_is_left_out_where_all_atoms_are_co_active(planted, monkeypatch):
    task, settings = make_task(planted[1]), GrownSettings()
    growth = begin_growth(task, settings)
    growth.atoms = planted[0].clone()
    monkeypatch.setattr(
        "dbksvd.fit.grown.settling.find_coactive",
        lambda codes: torch.ones(codes.n_atoms, dtype=torch.bool),
    )
    settle_(growth, task, settings)
    assert not growth.log
    assert torch.equal(growth.atoms, planted[0])


def test_penalties_follow_usage(planted):
    features, x = planted
    x = x - 0.3
    settings = PursuitSettings(9, nonnegative=True, threshold=2.0)
    usage = find_usage(encode_with(x, features.contiguous(), settings))
    found = set_penalties(x, features.contiguous(), usage, 2.0, settings)
    codes = encode_with(x, features.contiguous(), found)
    assert abs(float(codes.l0.double().mean()) - 2.0) < 0.1
    penalties = torch.tensor(found.penalties, dtype=torch.float64)
    torch.testing.assert_close(penalties / penalties[0], usage.log() / usage[0].log())
    assert found.threshold == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.0}, r"method.threshold: expected more than 0, got 0.0"),
        ({"bias": "one"}, r"method.bias: expected one of 'zero', 'mean', got 'one'"),
        ({"cleaning": 1.5}, r"method.cleaning: expected at most 1, got 1.5"),
        ({"settle_iter": -1}, r"method.settle_iter: expected at least 0, got -1"),
        ({"polish_iter": 0}, r"method.polish_iter: expected at least 1, got 0"),
        ({"tau": 1}, r"method.tau: unknown key"),
    ],
)
def test_bad_settings(planted, settings, message):
    with pytest.raises(ValueError, match=message):
        fit(make_task(planted[1], **settings))


def test_nothing_left_to_explain():
    with pytest.raises(ValueError, match="n_atoms: expected at most 0, which explain all samples"):
        fit(make_task(torch.zeros(12_000, 5)))


def test_work_of_a_fit_by_hand():
    sizes = FitSizes(n_atoms=32, k=4, width=8, n_train=1000, n_heldout=10)

    def count(**settings: object) -> Work:
        return METHOD.plan(GrownSettings(polish_iter=3, **settings), sizes)

    polished = count(warm_start="x")
    # Nothing grows: 3 iterations and 2 more codings of all samples, and one measurement; cleaning
    # codes once more and finds 4 directions of 8 numbers for 4 atoms a sample in 5 iterations.
    bare = count(warm_start="x", cleaning=0)
    assert bare.products == 5010 * 512
    assert polished.products - bare.products == 1000 * 512 + 1000 * 4 * (4 * 4 * 8 * 5)
    whole, unsettled = count(), count(settle_iter=0)
    assert whole.products > unsettled.products > polished.products
    # 40 batches and 4 larger ones, all of the 1,000 samples there are.
    assert whole.products - unsettled.products == 44_000 * 512
    assert whole.memory == polished.memory == 4 * (1000 * (2 * 8 + 2 * 4) + 3 * 32 * 8)
    assert whole.disk == 2 * 32 * 8 * 4
    assert METHOD.coding(GrownSettings(), sizes).products == 512


def test_as_many_atoms_join_as_the_plan_says(grown):
    sizes = list(dict.fromkeys(row["n_atoms"] for row in grown.log))
    for held, joined in zip([0, *sizes], sizes, strict=False):
        assert 0 < joined - held <= count_joining(held, N_FEATURES, GrownSettings().growth)
    assert count_joining(20, 24, 0.5) == 4


def test_the_entry_names_the_method_that_it_begins_from():
    assert METHOD.find_base(GrownSettings()) is None
    assert METHOD.find_base(GrownSettings(warm_start="sae")) == Base("warm_start", "sae")
    assert METHOD.label(GrownSettings()) == "grown DB-KSVD"


def test_the_entry_is_imported_without_torch():
    code = "import sys, dbksvd.fit.grown.method; assert not {'torch', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_samples_of_each_step_are_bounded():
    assert [count_round_rows(m, 100) for m in (2, 200, 4096)] == [10_000, 20_000, 50_000]
    assert [count_polish_rows(m) for m in (512, 4096)] == [102_400, 409_600]
    assert [count_cleaning_rows(m) for m in (512, 4096)] == [204_800, 409_600]
    assert plan_settling(512, 16, 3) == [4096] * 3 + [8192, 16384, 32768, 65536]
    assert max(plan_settling(16384, 40, 3)) == 409_600
    assert plan_settling(512, 16, 0) == []
