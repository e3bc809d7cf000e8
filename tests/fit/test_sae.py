"""SAEs train on shards and land in the common format with unit atoms."""

import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rows import Rows

from dbksvd.base.settings import parse
from dbksvd.base.work import Work
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.evaluation.heldout import measure_dictionary
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.fit.method import FitSizes
from dbksvd.fit.sae.configure import complete_settings, find_widths
from dbksvd.fit.sae.method import METHOD, fit
from dbksvd.fit.sae.settings import TrainingSettings
from dbksvd.fit.sae.trainer import SAELoop
from dbksvd.fit.task import FitTask

ROOT = Path(__file__).parents[2]
SETTINGS = {"algorithm": "sae", "architecture": "topk", "training_samples": 60_000}
STEERED = ("standard", "gated", "jumprelu")
SMALL = {"batch_size": 100, "measure_every": 15_000}
TOPK = {"lr": 0.004, "lr_warm_up": 0.05, "lr_decay": 0.2}
# Fraction of variance to be explained by each after its training, and settings of its own.
LEARNED = {
    "standard": (0.35, {}),
    "gated": (0.5, {}),
    "jumprelu": (0.5, {}),
    "topk": (0.8, TOPK),
    "abstopk": (0.7, TOPK),
    "batchtopk": (0.8, {}),
    "matryoshka_batchtopk": (0.7, {"groups": [16, 48]}),
    "matching_pursuit": (0.7, {"training_samples": 30_000}),
    "switch": (0.5, {"n_experts": 4}),
    "kron": (0.5, {"base": 2, "extension": 2}),
    "llama_scope": (0.0, {}),  # its rates are for a million times the samples
}


def make_planted() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(32, 16, generator=generator), dim=1)
    codes = torch.zeros(4000, 32)
    picks = torch.rand(4000, 32, generator=generator).topk(3, dim=1).indices
    codes.scatter_(1, picks, 1 + torch.rand(4000, 3, generator=generator))
    return 3.0 + 5.0 * codes @ atoms


def parse_sae(architecture: str, **changes: object) -> TrainingSettings:
    return parse(METHOD.settings, {"algorithm": "sae", "architecture": architecture, **changes})


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
        settings=parse(METHOD.settings, SETTINGS | SMALL | changes),
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
    assert seal["settings"]["lr"] == parse_sae(architecture).lr


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


def test_the_log_is_what_the_saved_sae_scores_beside_a_large_constant(planted, tmp_path: Path):
    x = planted.clone()
    x[:, 5] += 3000
    result = fit(make_task(x, tmp_path / "work", **TOPK, training_samples=3000, batch_size=100))
    result.save(tmp_path / "sae")
    dictionary, heldout = load_dictionary(tmp_path / "sae"), x[3500:]
    scored = measure_dictionary(dictionary, heldout)["explained_variance"]
    codes = dictionary.encode(heldout).to_dense().double()
    made = codes @ dictionary.atoms.double() + dictionary.bias.double()
    total = (heldout.double() - heldout.double().mean(dim=0)).square().sum()
    expected = float(1 - (heldout.double() - made).square().sum() / total)
    assert scored == pytest.approx(expected, abs=1e-8)  # norms of atoms are 1 to float32
    assert result.log[-1]["fve_heldout"] == pytest.approx(expected, rel=1e-5)  # before folding


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
    with pytest.raises(ValueError, match=r"architecture: expected one of 'standard', .*'relu'"):
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
    gated = parse_sae("gated", training_samples=240_000, lr=1.0)
    settings = complete_settings(gated, 64, 3, 10**5)
    assert settings.training_samples == 240_000
    assert settings.measure_every == 20_000
    assert settings.dead_window == 48_000
    assert settings.lr == 1.0
    assert gated.measure_every is None
    longest = complete_settings(parse_sae("gated", training_samples=10**9), 64, 3, 10**5)
    assert longest.dead_window == 10**7
    told = parse_sae("gated", training_samples=10**9, dead_window=5, measure_every=7)
    assert complete_settings(told, 64, 3, 10**5) == told


def test_samples_are_those_that_db_ksvd_sees_by_default(planted: torch.Tensor):
    rows = planted[:200]
    learner = DBKSVD(8, 2, device="cpu").fit(rows)
    settings = complete_settings(parse_sae("topk"), 8, 2, len(rows))
    assert settings.training_samples == learner.log_[-1]["samples_seen"]
    assert settings.measure_every == settings.training_samples // 12


@pytest.mark.parametrize(("samples", "lr"), [(10_000, 0.5), (400_000, 0.025), (10_000_000, 0.01)])
def test_threshold_of_batchtopk_settles_within_the_training(samples, lr):
    settings = parse_sae("batchtopk", training_samples=samples, batch_size=1000)
    assert complete_settings(settings, 64, 3, 10**5).topk_threshold_lr == lr


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


def test_llama_scope_ends_at_a_hundredth_of_its_rate_with_gradients_cut(planted, tmp_path):
    changes = {"architecture": "llama_scope", "training_samples": 5000, "measure_every": 100}
    task = make_task(planted, tmp_path / "work", **changes)
    loop = SAELoop(task, complete_settings(task.settings, 64, 3, 3500))
    norms = []

    def look(optimizer, *_args):
        weights = optimizer.param_groups[0]["params"]
        norms.append(float(torch.cat([weight.grad.flatten() for weight in weights]).norm()))

    loop.trainer.optimizer.register_step_pre_hook(look)  # behind the cut
    loop.run()
    rates = [row["lr"] / 8e-4 for row in loop.log]
    assert len(rates) == len(norms) == 50
    assert rates[:41] == pytest.approx([1.0] * 41)
    assert rates[41:] == pytest.approx([1 - 0.99 * step / 10 for step in range(1, 10)])
    assert max(norms) <= 1.001e-3
    assert loop.trainer.optimizer.param_groups[0]["betas"] == (0.9, 0.9999)


def test_entry_needs_no_torch_and_names_each_architecture():
    check = "import sys, dbksvd.fit.sae.method; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0
    labels = [METHOD.label(parse_sae(architecture)) for architecture in LEARNED]
    assert len(set(labels)) == len(LEARNED)
    assert METHOD.label(parse_sae("topk")) == "TopK SAE"
    assert METHOD.is_data_parallel
    assert not METHOD.makes_control(parse_sae("topk"))


@pytest.mark.parametrize("architecture", LEARNED)
def test_complete_settings_are_settings(architecture: str):
    complete = complete_settings(parse_sae(architecture), 64, 3, 10**5).dump()
    assert [name for name, value in complete.items() if value is None] == (
        ["max_seconds", "groups"] if architecture == "matryoshka_batchtopk" else ["max_seconds"]
    )
    assert parse(METHOD.settings, complete).dump() == complete


def test_sizes_are_checked_before_a_fit():
    METHOD.check_sizes(parse_sae("switch", n_experts=4), 64, 3)
    with pytest.raises(ValueError, match=r"^k: expected at most the 2 atoms of an expert"):
        METHOD.check_sizes(parse_sae("switch", n_experts=32), 64, 3)
    with pytest.raises(ValueError, match=r"^x\.lr_decay: expected lr_warm_up \+ lr_decay below 1"):
        values = {"architecture": "topk", "lr_warm_up": 0.6, "lr_decay": 0.5}
        parse(METHOD.settings, values, "x")


def test_a_training_counts_three_passes_a_step():
    sizes = FitSizes(n_atoms=32, k=4, width=8, n_train=1000, n_heldout=10)
    settings = parse_sae("topk", training_samples=1000, batch_size=100, measure_every=500)
    both = 2 * 2 * 8 * 32  # encoder and decoder
    memory = 4 * (8 * 32 * 8 + 3 * 100 * 32)
    expected = Work(products=3 * 1000 * both + 3 * 10 * both, memory=memory, disk=4 * 2 * 32 * 8)
    assert METHOD.plan(settings, sizes) == expected
    kron = parse_sae("kron", base=2, extension=2)
    assert METHOD.coding(kron, sizes).products == 2 * 8 * (8 * (2 + 2) + 2 * 2)
