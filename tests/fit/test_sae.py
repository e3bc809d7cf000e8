"""SAEs train on shards and land in the common format with unit atoms."""

import json
import logging
import math
from pathlib import Path

import pytest
import torch
from rows import Rows

from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.fit.sae.method import fit
from dbksvd.fit.sae.settings import ARCHITECTURES, STEERED, complete_settings, find_widths
from dbksvd.fit.task import FitTask

SETTINGS = {"algorithm": "sae", "architecture": "topk", "training_samples": 60_000}
SMALL = {"batch_size": 100, "measure_every": 15_000}
TOPK = {"lr": 0.004, "lr_warm_up": 0.05, "lr_decay": 0.2}
# Fraction of variance to be explained by each after its training, and settings of its own.
LEARNED = {
    "standard": (0.35, {}),
    "gated": (0.5, {}),
    "jumprelu": (0.5, {}),
    "topk": (0.8, TOPK),
    "batchtopk": (0.8, {}),
    "matryoshka_batchtopk": (0.7, {"groups": [16, 48]}),
    "matching_pursuit": (0.7, {"training_samples": 30_000}),
    "switch": (0.5, {"n_experts": 4}),
    "kron": (0.5, {"base": 2, "extension": 2}),
}


def make_planted() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(32, 16, generator=generator), dim=1)
    codes = torch.zeros(4000, 32)
    picks = torch.rand(4000, 32, generator=generator).topk(3, dim=1).indices
    codes.scatter_(1, picks, 1 + torch.rand(4000, 3, generator=generator))
    return 3.0 + 5.0 * codes @ atoms


@pytest.fixture(scope="module")
def planted() -> torch.Tensor:
    return make_planted()


def make_task(x: torch.Tensor, checkpoint: Path, **changes: object) -> FitTask:
    return FitTask(
        train=Rows(x[:3500]),
        heldout=Rows(x[3500:]),
        n_atoms=64,
        k=3,
        seed=0,
        settings=SETTINGS | SMALL | changes,
        device=torch.device("cpu"),
        checkpoint=checkpoint,
        metadata={"model_name": "m", "hook_name": "h"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("architecture", LEARNED)
def test_learns_and_folds_its_scale(architecture: str, planted: torch.Tensor, tmp_path: Path):
    least, changes = LEARNED[architecture]
    changes = {"architecture": architecture, **changes}
    result = fit(make_task(planted, tmp_path / "work", **changes))
    last = result.log[-1]
    assert last["samples_seen"] == changes.get("training_samples", 60_000)
    assert last["fve_heldout"] > least
    if architecture not in STEERED:  # those begin with too many active latents
        assert last["fve_heldout"] > result.log[0]["fve_heldout"]
    assert math.isfinite(last["loss"])
    result.save(tmp_path / "sae")
    dictionary = load_dictionary(tmp_path / "sae")
    torch.testing.assert_close(dictionary.atoms.norm(dim=1), torch.ones(64), atol=1e-5, rtol=0)
    # In units of the raw activations: what was measured in training holds after folding, for the
    # form that is on disk, L0 too.
    heldout = planted[3500:]
    codes = dictionary.encode(heldout)
    error = (heldout - dictionary.decode(codes)).pow(2).sum()
    total = (heldout - heldout.mean(dim=0)).pow(2).sum()
    assert 1 - error / total == pytest.approx(last["fve_heldout"], abs=1e-3)
    assert codes.l0.double().mean() == pytest.approx(last["l0"], abs=0.02)
    seal = json.loads((tmp_path / "sae" / "fit.json").read_text())
    assert seal["l0"] == last["l0"]
    assert seal["stop_reason"] == "samples"
    assert seal["precision"] == "float32"
    assert seal["settings"]["lr"] == ARCHITECTURES[architecture]["lr"]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", STEERED)
@pytest.mark.parametrize("k", [2, 6])
def test_steered_architectures_reach_k(architecture, k, planted, tmp_path):
    task = make_task(planted, tmp_path / "work", architecture=architecture)
    task.k = k
    result = fit(task)
    assert result.log[-1]["l0"] == pytest.approx(k, rel=0.1)
    assert result.summary["coefficient"] == result.log[-1]["coefficient"] > 0
    assert result.log[-1]["coefficient"] != result.log[0]["coefficient"]


def test_rows_of_the_log(planted: torch.Tensor, tmp_path: Path):
    changes = {**TOPK, "training_samples": 1050, "measure_every": 300, "batch_size": 100}
    result = fit(make_task(planted, tmp_path, **changes))
    assert [row["samples_seen"] for row in result.log] == [300, 600, 900, 1000]
    assert [row["iteration"] for row in result.log] == [3, 6, 9, 10]
    seconds = [row["seconds"] for row in result.log]
    assert seconds == sorted(seconds)
    assert set(result.log[0]) == {
        *("iteration", "samples_seen", "seconds", "loss", "lr", "coefficient"),
        *("fve_heldout", "l0", "dead_atoms"),
    }
    assert result.log[1]["lr"] == 0.004 > result.log[-1]["lr"]
    assert result.log[-1]["coefficient"] is None
    result.save(tmp_path / "sae")
    assert (tmp_path / "sae" / "log.csv").read_text().count("\n") == 5


def test_ends_early_by_seconds_and_by_gain(planted: torch.Tensor, tmp_path: Path):
    short = fit(make_task(planted, tmp_path / "a", max_seconds=1e-9))
    assert short.stop_reason == "max_seconds"
    assert short.log[-1]["samples_seen"] == 100
    assert len(short.log) == 1
    even = fit(make_task(planted, tmp_path / "b", tol=1.0, measure_every=500))
    assert even.stop_reason == "converged"
    assert even.log[-1]["samples_seen"] == 1000


def test_steered_training_does_not_end_before_its_l0(planted: torch.Tensor, tmp_path: Path):
    changes = {"architecture": "standard", "tol": 1.0, "measure_every": 100}
    result = fit(make_task(planted, tmp_path, training_samples=1000, **changes))
    assert all(abs(row["l0"] / 3 - 1) > 0.1 for row in result.log[1:])
    assert result.stop_reason == "samples"


def test_seed_decides_and_the_caller_keeps_its_generator(planted: torch.Tensor, tmp_path: Path):
    losses = []
    for number, seed in enumerate((0, 0, 1)):
        task = make_task(planted, tmp_path / str(number), training_samples=500)
        task.seed = seed
        torch.manual_seed(number)
        before = torch.get_rng_state()
        losses.append(fit(task).log[-1]["loss"])
        assert torch.equal(torch.get_rng_state(), before)
    assert losses[0] == losses[1] != losses[2]


def test_precision_is_stated(planted: torch.Tensor, tmp_path: Path, caplog):
    with caplog.at_level(logging.INFO):
        result = fit(make_task(planted, tmp_path, training_samples=200, autocast=True))
    assert "float32: autocast is for CUDA only" in caplog.text
    assert result.summary["precision"] == "float32"


def test_diverging_training_is_named(planted: torch.Tensor, tmp_path: Path):
    with pytest.raises(ValueError, match=r"lr: expected a rate .*, got 1e\+30: the loss is"):
        fit(make_task(planted, tmp_path, lr=1e30, training_samples=3000))


def test_unknown_architecture_is_named(planted: torch.Tensor, tmp_path: Path):
    with pytest.raises(ValueError, match=r"architecture: expected one of standard, .*'relu'"):
        fit(make_task(planted, tmp_path, architecture="relu"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "switch", "n_experts": 5}, "n_experts: expected a divisor of n_atoms"),
        ({"architecture": "switch", "n_experts": 32}, "k: expected at most the 2 atoms"),
        ({"architecture": "kron", "base": 5}, "base: expected base x extension to divide"),
        ({"architecture": "matryoshka_batchtopk", "groups": [8, 8]}, "groups: expected positive"),
    ],
)
def test_sizes_that_do_not_fit_are_named(planted, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(make_task(planted, tmp_path, **changes))


def test_fewer_rows_and_samples_than_a_batch(planted: torch.Tensor, tmp_path: Path):
    task = make_task(planted, tmp_path, batch_size=1000, training_samples=10)
    task.train = Rows(planted[:40])
    assert fit(task).log[-1]["samples_seen"] == 40


def test_defaults_that_follow_the_samples():
    settings = complete_settings({"architecture": "gated", "training_samples": 240_000, "lr": 1.0})
    assert settings["measure_every"] == 20_000
    assert settings["dead_window"] == 48_000
    assert settings["lr"] == 1.0
    longest = complete_settings({"architecture": "gated", "training_samples": 10**9})
    assert longest["dead_window"] == 10**7


@pytest.mark.parametrize(("samples", "lr"), [(10_000, 0.5), (400_000, 0.025), (10_000_000, 0.01)])
def test_threshold_of_batchtopk_settles_within_the_training(samples, lr):
    settings = {"architecture": "batchtopk", "training_samples": samples, "batch_size": 1000}
    assert complete_settings(settings)["topk_threshold_lr"] == lr


@pytest.mark.parametrize(
    ("groups", "widths"),
    [
        (None, [64, 128, 256, 512]),
        (128, [128, 256, 512]),
        ([100, 400, 12], [100, 500, 512]),
        (500, [500, 512]),
    ],
)
def test_matryoshka_widths_are_nested(groups, widths):
    assert find_widths(groups, 512) == widths
