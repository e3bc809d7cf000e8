"""DB-KSVD: recovery of planted dictionaries, invariants of a fit, checkpoints, bad input."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import try_examples
from hypothesis import given
from hypothesis import strategies as st

from dbksvd import DBKSVD, Dictionary
from dbksvd.fit.ksvd import replacement
from dbksvd.fit.ksvd.checkpoint import CHECKPOINT_FILE
from dbksvd.fit.ksvd.replacement import find_duplicates, replace_atoms_
from dbksvd.fit.ksvd.schedule import choose_batch_size, plan_steps, split_groups
from dbksvd.fit.ksvd.settings import DBKSVDSettings
from dbksvd.fit.reading import ActivationSource, read_cycle

ROOT = Path(__file__).parents[2]


def make_planted(n, d, m, k, seed, *, nonnegative=False):
    draw = np.random.default_rng(seed)
    atoms = draw.standard_normal((m, d))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    indices = np.argsort(draw.random((n, m)), axis=1)[:, :k]
    values = draw.uniform(0.5, 1.5, (n, k))
    if not nonnegative:
        values *= draw.choice([-1.0, 1.0], (n, k))
    x = (values[:, :, None] * atoms[indices]).sum(1)
    return torch.from_numpy(x).float(), torch.from_numpy(atoms).float()


def count_recovered(planted, found):
    return float(((planted @ found.T).abs().amax(dim=1) > 0.99).float().mean())


def make_data(n=600, d=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator)
    return torch.randn(n, d, generator=generator) ** 3 @ mixing + 3


class Shards:
    """The least an ActivationSource is: reads are recorded."""

    def __init__(self, x):
        self.x, self.reads, self.width = x, [], x.shape[1]

    def __len__(self):
        return len(self.x)

    def read(self, start, stop):
        self.reads.append((start, stop))
        return self.x[start:stop].clone()


FAST_FIT = {"max_iter": 3, "polish_iter": 1, "doubling_iterations": 1}


def fit_small(x, **options):
    return DBKSVD(**({"n_atoms": 40, "k": 3, "batch_size": 250} | FAST_FIT | options)).fit(x)


def test_planted_dictionary_is_recovered():
    x, planted = make_planted(4000, 64, 128, 4, seed=0)
    model = DBKSVD(128, 4, max_iter=25, init="random").fit(x)
    assert count_recovered(planted, model.dictionary_.atoms) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("nonnegative", [False, True])
def test_planted_dictionaries_are_recovered_from_nine_of_ten_seeds(nonnegative):
    recovered = []
    for seed in range(10):
        x, planted = make_planted(5000, 64, 128, 4, seed, nonnegative=nonnegative)
        model = DBKSVD(
            *(128, 4),
            max_iter=30,
            init="random",
            seed=seed,
            nonnegative=nonnegative,
        ).fit(x)
        recovered.append(count_recovered(planted, model.dictionary_.atoms))
    assert sum(share >= 0.95 for share in recovered) >= 9, recovered


def test_exact_ksvd_never_raises_the_error_of_an_update():
    model = fit_small(make_data(), batch_size=600, polish_iter=0, atom_batch=1, power_iterations=10)
    for row in model.log_:
        assert row["error_updated"] <= row["error_coded"] * (1 + 1e-6)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("init", ["doubling", "samples", "random"])
@pytest.mark.parametrize("groups", [None, 8, [10, 30]])
def test_fit_improves_and_is_well_formed(init, nonnegative, groups):
    x, heldout = make_data(), make_data(200, seed=1)
    model = DBKSVD(
        40,
        4,
        batch_size=600,
        init=init,
        nonnegative=nonnegative,
        groups=groups,
        heldout_every=1,
        **FAST_FIT,
    ).fit(x, heldout=heldout)
    full = [row for row in model.log_ if row["n_atoms"] == 40]
    assert [row["iteration"] for row in model.log_] == list(range(1, len(model.log_) + 1))
    assert len(full) == 4
    assert full[-1]["fve_train"] > full[0]["fve_train"] > 0
    assert all(0 < row["fve_heldout"] < 1 for row in model.log_)
    assert model.stop_reason_ == "max_iter"
    dictionary = model.dictionary_
    assert dictionary.atoms.shape == (40, 16)
    torch.testing.assert_close(dictionary.atoms.norm(dim=1), torch.ones(40))
    torch.testing.assert_close(dictionary.bias, x.mean(0), rtol=1e-4, atol=1e-4)
    codes = model.transform(x)
    flat = dictionary.encode(x)
    assert torch.equal(codes.indices, flat.indices)
    grouped = model.transform(x, grouped=True)
    assert grouped.l0.max() <= len(model.groups_) * -(-4 // len(model.groups_))
    assert not nonnegative or (grouped.values >= 0).all()
    error = (x - dictionary.decode(grouped)).square().sum()
    assert error < (x - x.mean(0)).square().sum()


def test_held_out_variance_explained_is_what_it_says():
    x, heldout = make_data(), make_data(200, seed=1)
    model = DBKSVD(40, 4, **FAST_FIT).fit(x, heldout=heldout)
    found = model.dictionary_.decode(model.transform(heldout))
    expected = 1 - (heldout - found).square().sum() / (heldout - heldout.mean(0)).square().sum()
    assert model.log_[-1]["fve_heldout"] == pytest.approx(float(expected), abs=1e-5)
    assert model.log_[0]["fve_heldout"] is None


def test_groups():
    assert split_groups(100, None) == (100,)
    assert split_groups(1024, 256) == (256, 256, 512)
    assert split_groups(300, 128) == (128, 128, 44)
    assert split_groups(10, [3, 7]) == (3, 7)
    chosen = DBKSVDSettings(
        **{"init": "doubling", "doubling_iterations": 2, "doubling_samples": 10, "max_iter": 3},
        **{"polish_iter": 2, "batch_size": 900, "iterations_per_batch": 2, "groups": [48, 52]},
    )
    steps = plan_steps(chosen, n_atoms=100, k=5, n_samples=3000)
    assert [step.groups for step in steps[:6:2]] == [(32,), (48, 16), (48, 52)]
    assert [step.budget for step in steps] == [3] * 9
    assert [step.samples for step in steps] == [640] * 4 + [900] * 3 + [1800, 3000]
    # doubling reads on; at full size two iterations share a batch
    positions = [0, 640, 1280, 1920, 2560, 2560, 3460, 3460, 5260]
    assert [step.position for step in steps] == positions
    assert choose_batch_size(1024, 16) == 8192
    assert choose_batch_size(10, 5) == 2048


def test_each_group_explains_what_earlier_ones_leave():
    x = make_data()
    model = fit_small(x, groups=[10, 30], k=4, max_iter=6)
    head = model.dictionary_.atoms[:10]
    prefix = Dictionary(head, model.dictionary_.bias, model.fit_pursuit)
    error = (x - prefix.decode(prefix.encode(x))).square().sum()
    total = (x - x.mean(0)).square().sum()
    assert error < 0.8 * total


def test_shards_are_read_in_batches_only_and_the_same_as_tensors():
    x = make_data()
    shards = Shards(x)
    assert isinstance(shards, ActivationSource)
    plain = fit_small(x)
    model = fit_small(shards)
    assert torch.equal(model.dictionary_.atoms, plain.dictionary_.atoms)
    shards.mean = x.mean(0)
    shards.reads.clear()
    model = fit_small(shards, init="samples", batch_size=100)
    # after the look at the scale and the fingerprint; the polish batch is twice as large
    assert all(stop - start <= 200 for start, stop in shards.reads[1:])
    array = fit_small(x.double().numpy())
    assert torch.equal(array.dictionary_.atoms, plain.dictionary_.atoms)


def test_batches_cycle_through_the_data():
    rows = read_cycle(Shards(torch.arange(14.0).reshape(7, 2)), 12, 10)
    assert rows[:, 0].tolist() == [10, 12, 0, 2, 4, 6, 8, 10, 12, 0]


def test_seeds_and_threads():
    x = make_data(40_000, 12)
    options = {"batch_size": 40_000, "max_iter": 2, "nonnegative": True}
    before = torch.get_num_threads()
    atoms = []
    for threads, seed in ((1, 0), (2, 0), (1, 1)):
        torch.set_num_threads(threads)
        atoms.append(fit_small(x, seed=seed, **options).dictionary_.atoms)
    torch.set_num_threads(before)
    assert torch.equal(atoms[0], atoms[1])
    assert not torch.equal(atoms[0], atoms[2])


@pytest.mark.parametrize("implementation", ["reference", "batched"])
def test_implementations_learn_the_same(implementation):
    x = make_data(200, 8)
    options = {"n_atoms": 20, "max_iter": 2, "init": "samples", "batch_size": None}
    expected = fit_small(x, implementation="cpu", **options)
    model = fit_small(x, implementation=implementation, **options)
    assert model.implementation_ == implementation
    torch.testing.assert_close(
        model.dictionary_.atoms, expected.dictionary_.atoms, rtol=1e-3, atol=1e-3
    )


def test_warm_start_continues():
    x = make_data()
    first = fit_small(x, batch_size=None)
    second = fit_small(x, batch_size=None, init=3 * first.dictionary_.atoms, max_iter=1)
    assert second.log_[0]["fve_train"] > first.log_[-1]["fve_train"] - 0.01
    assert len(second.log_) == 2


def test_stopping_by_time_and_by_tolerance():
    x = make_data()
    assert fit_small(x, max_iter=50, max_seconds=1e-6).stop_reason_ == "max_seconds"
    model = fit_small(x, max_iter=200, tol=0.01, batch_size=None)
    assert model.stop_reason_ == "converged"
    assert len(model.log_) < 50


def test_duplicates_keep_the_most_used():
    atoms = torch.nn.functional.normalize(torch.randn(6, 9), dim=1)
    atoms[3], atoms[5] = atoms[0], -atoms[1]
    usage = torch.tensor([1, 5, 5, 9, 5, 5])
    found = find_duplicates(atoms, usage, 0.99, nonnegative=False)
    assert found.tolist() == [True, False, False, False, False, True]
    found = find_duplicates(atoms, usage, 0.99, nonnegative=True)
    assert found.tolist() == [True, False, False, False, False, False]


def test_duplicates_are_found_across_blocks(monkeypatch):
    atoms = torch.nn.functional.normalize(torch.randn(40, 9), dim=1)
    atoms[30:] = -atoms[:10]
    usage = torch.randint(0, 4, (40,))
    whole = find_duplicates(atoms, usage, 0.99, nonnegative=False)
    assert whole.sum() == 10
    monkeypatch.setattr(replacement, "BLOCK_ATOMS", 7)
    assert torch.equal(find_duplicates(atoms, usage, 0.99, nonnegative=False), whole)


def test_replacement_takes_the_worst_samples_that_differ():
    atoms = torch.eye(4)[[0, 0, 1, 2]]
    residual = torch.tensor([[0, 0, 0, 5.0], [0, 0, 0, -4.0], [0, 3.0, 0, 0], [0, 0, 0, 0]])
    counts = replace_atoms_(
        *(atoms, torch.tensor([7, 3, 9, 0]), residual),
        min_usage=2,
        max_cosine=0.99,
        nonnegative=False,
    )
    assert counts == (1, 1)
    torch.testing.assert_close(atoms, torch.eye(4)[[0, 3, 1, 1]])


def test_replacements_are_counted_in_the_log():
    x = make_data()
    clones = torch.nn.functional.normalize(torch.randn(1, 16), dim=1).repeat(40, 1)
    model = fit_small(x, init=clones, max_iter=1)
    first = model.log_[0]
    assert first["replaced_unused"] + first["replaced_duplicate"] == 39
    assert model.log_[1]["dead_atoms"] < 39


@pytest.mark.parametrize("scale", [1e-20, 1e20])
@pytest.mark.parametrize("sparsity", ["exact", "mean"])
def test_scale_of_the_data_does_not_matter(scale, sparsity):
    x = make_data()
    plain = fit_small(x, sparsity=sparsity)
    scaled = fit_small((x.double() * scale).float(), sparsity=sparsity)
    thresholds = [model.log_[-1]["threshold"] for model in (plain, scaled)]
    assert thresholds[1] == pytest.approx(scale * thresholds[0], rel=0.02)
    assert (thresholds[0] > 0) == (sparsity == "mean")
    assert scaled.log_[-1]["fve_train"] == pytest.approx(plain.log_[-1]["fve_train"], abs=0.02)
    assert scaled.log_[-1]["error_updated"] < (x.double() * scale).square().sum()


@try_examples(12)
@given(
    kind=st.sampled_from(["zeros", "repeats", "constant column", "one sample", "two samples"]),
    nonnegative=st.booleans(),
    init=st.sampled_from(["doubling", "samples", "random"]),
    sparsity=st.sampled_from(["exact", "mean"]),
)
def test_degenerate_data(kind, nonnegative, init, sparsity):
    x = {
        "zeros": torch.zeros(20, 6),
        "repeats": torch.arange(6.0).repeat(20, 1),
        "constant column": torch.cat([torch.ones(30, 1), make_data(30, 5)], 1),
        "one sample": make_data(1, 6),
        "two samples": make_data(2, 6),
    }[kind]
    model = DBKSVD(12, 2, nonnegative=nonnegative, init=init, max_iter=3)
    differ = kind in ("constant column", "two samples")
    if not differ:
        with pytest.raises(ValueError, match=f"heldout: .* differ, got {len(x)} that do not"):
            model.fit(x, heldout=x)
    model.fit(x, heldout=x if differ else None)
    torch.testing.assert_close(model.dictionary_.atoms.norm(dim=1), torch.ones(12))
    decoded = model.dictionary_.decode(model.transform(x))
    assert torch.isfinite(decoded).all()
    assert not differ or 0 <= model.log_[-1]["fve_heldout"] <= 1


RESUMED = """
import logging
import torch
from dbksvd import DBKSVD
logging.basicConfig(level=logging.INFO)
x = torch.randn(20000, 24, generator=torch.Generator().manual_seed(0)) ** 3
model = DBKSVD(
    64, 4, max_iter={max_iter}, batch_size=6000, checkpoint={checkpoint!r}, checkpoint_seconds=0
)
model.fit(x)
model.dictionary_.save({result!r})
"""


def start_fit(folder, name, max_iter=25):
    code = RESUMED.format(
        max_iter=max_iter, checkpoint=str(folder / f"{name}-work"), result=str(folder / name)
    )
    environment = os.environ | {"PYTHONPATH": "."}
    with (folder / f"{name}.log").open("w") as log:
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=log)


@pytest.mark.slow
def test_a_killed_fit_goes_on_and_ends_with_the_same_bytes(tmp_path):
    unbroken = start_fit(tmp_path, "unbroken")
    assert unbroken.wait(timeout=120) == 0
    file = tmp_path / "killed-work" / CHECKPOINT_FILE
    killed = start_fit(tmp_path, "killed")
    deadline = time.monotonic() + 120
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    resumed = start_fit(tmp_path, "killed")
    assert resumed.wait(timeout=120) == 0
    log = (tmp_path / "killed.log").read_text()
    assert re.search(r"going on after iteration [1-9]", log), log
    for name in ("sae_weights.safetensors", "cfg.json"):
        expected = (tmp_path / "unbroken" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == expected


class Interrupted(Shards):
    """Breaks off at the read with number `fail_at`."""

    fail_at = 10**9

    def read(self, start, stop):
        if len(self.reads) == self.fail_at:
            raise OSError("cable pulled")
        return super().read(start, stop)


@pytest.mark.parametrize(
    "options",
    [{}, {"groups": 10}, {"nonnegative": True, "init": "random", "sparsity": "mean"}],
)
def test_a_fit_goes_on_from_every_iteration(tmp_path, options):
    x = make_data()
    source = Interrupted(x)
    options = options | {"checkpoint": tmp_path / "whole", "checkpoint_seconds": 0}
    expected = fit_small(source, **options)
    reads = source.reads
    options["checkpoint"] = tmp_path / "broken"
    broken = 0
    # each attempt gets one read further than the last, so every place of a fit is broken off
    for fail_at in range(1, 60):
        source.reads, source.fail_at = [], fail_at
        try:
            model = fit_small(source, **options)
            break
        except OSError:
            broken += 1
    assert broken > 3
    assert len(source.reads) < len(reads)  # the last attempt did not begin again
    assert torch.equal(model.dictionary_.atoms, expected.dictionary_.atoms)
    assert len(model.log_) == len(expected.log_)
    source.reads, source.fail_at = [], 10**9
    again = fit_small(source, **options)
    assert len(source.reads) < len(reads) / 2  # what is complete is not fitted again
    assert torch.equal(again.dictionary_.atoms, expected.dictionary_.atoms)
    assert again.stop_reason_ == "max_iter"


def test_a_checkpoint_of_something_else_is_not_used(tmp_path, caplog):
    x = make_data()
    options = {"checkpoint": tmp_path, "checkpoint_seconds": 0}
    fit_small(x, **options)
    caplog.set_level(logging.WARNING, logger="dbksvd")
    for other, reason in (
        ({"seed": 5}, "another seed"),
        ({"nonnegative": True}, "another settings"),
        ({"max_iter": 2}, "another steps"),
    ):
        expected = fit_small(x, **other)
        model = fit_small(x, **options, **other)
        assert reason in caplog.text
        assert torch.equal(model.dictionary_.atoms, expected.dictionary_.atoms)
        fit_small(x, **options)
    fit_small(x + 1, **options)
    assert "another data" in caplog.text
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"torn")
    fit_small(x, **options)
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_atoms": 0}, "n_atoms: expected a positive integer, got 0"),
        ({"k": 41}, "k: expected at most n_atoms=40, got 41"),
        ({"k": 2.5}, "k: expected a positive integer, got 2.5"),
        ({"max_iter": 0}, "max_iter: expected a positive integer, got 0"),
        ({"polish_iter": -1}, "polish_iter: expected an integer ≥ 0, got -1"),
        ({"batch_size": -1}, "batch_size: expected a positive integer, got -1"),
        ({"atom_batch": 0}, "atom_batch: expected a positive integer, got 0"),
        ({"power_iterations": 0}, "power_iterations: expected a positive integer, got 0"),
        ({"init": "zeros"}, "init: expected doubling, samples, random or atoms, got 'zeros'"),
        ({"init": torch.zeros(40, 16)}, "init: expected finite atoms that are not zero"),
        ({"init": torch.ones(3, 16)}, r"init: expected atoms of shape \(40, 16\), got \(3, 16\)"),
        ({"groups": [1, 2]}, r"groups: expected positive sizes that add up to 40, got \[1, 2\]"),
        ({"groups": 41}, "groups: expected a first size from 1 to 40, got 41"),
        ({"sparsity": "low"}, "sparsity: expected 'exact' or 'mean', got 'low'"),
        ({"sparsity": "mean", "groups": 10}, "sparsity: expected 'exact' with groups=10, got"),
        ({"method": "lars"}, "method: expected 'mp', 'omp' or 'ols', got 'lars'"),
        ({"implementation": "cuda", "device": "cpu"}, "implementation: expected one available"),
        ({"method": "omp", "k": 17}, "k: expected at most the width d=16 for omp, got 17"),
    ],
)
def test_bad_settings_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        fit_small(make_data(100), **options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((9, 4), torch.nan), "x: expected finite values, got NaN"),
        (torch.zeros(9, 4, dtype=torch.int32), "x: expected float32 or float64, got int32"),
        (torch.zeros(0, 4), r"x: expected a non-empty matrix .* got shape \(0, 4\)"),
        (np.zeros(4), r"x: expected a non-empty matrix .* got shape \(4,\)"),
        ([[1.0]], "x: expected a tensor, an array or an object .* got list"),
        (Shards(torch.zeros(0, 4)), "x: expected at least one sample, got none"),
    ],
)
def test_bad_data_are_refused_by_name(x, message):
    with pytest.raises(ValueError, match=message):
        fit_small(x)


def test_bad_heldout_is_refused_by_name():
    with pytest.raises(ValueError, match="heldout: expected width 16, got 5"):
        DBKSVD(40, 3).fit(make_data(), heldout=torch.zeros(9, 5))


def test_products_in_bfloat16_change_little():
    x, _ = make_planted(3000, 16, 24, 3, 5)
    exact = DBKSVD(24, 3, max_iter=10).fit(x)
    rounded = DBKSVD(24, 3, max_iter=10, product_dtype="bfloat16").fit(x)
    assert rounded.implementation_ == "batched"
    assert rounded.dictionary_.settings.product_dtype == "bfloat16"
    ends = [model.log_[-1]["fve_train"] for model in (exact, rounded)]
    assert ends[1] == pytest.approx(ends[0], abs=0.05)
    with pytest.raises(ValueError, match="product_dtype: expected None for implementation 'cpu'"):
        DBKSVD(24, 3, product_dtype="bfloat16", implementation="cpu", device="cpu")
    with pytest.raises(ValueError, match="product_dtype: expected None or 'bfloat16', got 'int4'"):
        DBKSVD(24, 3, product_dtype="int4")
