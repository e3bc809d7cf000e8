"""Costs against cases counted by hand, every shipped config, and a run that was timed."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from dbksvd.base.settings import parse
from dbksvd.base.work import Work
from dbksvd.estimates.devices import DEVICES, Device
from dbksvd.estimates.stages import estimate_stages, list_sites
from dbksvd.evaluation.saebench.entry import EvalTexts
from dbksvd.evaluation.saebench.registry import find_eval, parse_eval
from dbksvd.fit.method import FitSizes
from dbksvd.fit.registry import find_method
from dbksvd.models.sizes import ModelSizes, find_sizes
from workflow.config import ExperimentConfig
from workflow.experiment import Experiment
from workflow.pages import Pages

ROOT = Path(__file__).parents[2]


def count_fit(
    settings: dict[str, Any], *, n_atoms: int, k: int, d: int, n_train: int, n_heldout: int
) -> Work:
    method = find_method(settings["algorithm"])
    parsed = parse(method.settings, settings, "method")
    return method.plan(parsed, FitSizes(n_atoms, k, d, n_train, n_heldout))


def count_coding(settings: dict[str, Any], n_atoms: int, k: int, d: int) -> Work:
    method = find_method(settings["algorithm"])
    assert method.coding is not None
    return method.coding(parse(method.settings, settings, "method"), FitSizes(n_atoms, k, d, 0, 0))


def count_eval(name: str, settings: dict[str, Any], kind: Any) -> EvalTexts:
    return find_eval(name).cost(parse_eval(name, settings), kind)


SHIPPED = [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))]


def test_fit_of_a_grown_dictionary_by_hand():
    settings = {"algorithm": "grown", "warm_start": "x", "polish_iter": 3}
    sizes = {"n_atoms": 32, "k": 4, "d": 8, "n_train": 1000, "n_heldout": 10}
    work = count_fit(settings, **sizes)
    # Nothing grows: 3 iterations and 2 more codings of all samples, and one measurement; cleaning
    # codes once more and finds 4 directions of 8 numbers for 4 atoms a sample in 5 iterations.
    bare = count_fit({**settings, "cleaning": 0}, **sizes)
    assert bare.products == 5010 * 512
    assert work.products - bare.products == 1000 * 512 + 1000 * 4 * (4 * 4 * 8 * 5)
    whole = count_fit({"algorithm": "grown", "polish_iter": 3}, **sizes)
    unsettled = count_fit({"algorithm": "grown", "polish_iter": 3, "settle_iter": 0}, **sizes)
    assert whole.products > unsettled.products > work.products
    # 40 batches and 4 larger ones, all of the 1,000 samples there are.
    assert whole.products - unsettled.products == 44_000 * 512
    assert whole.memory == work.memory == 4 * (1000 * (2 * 8 + 2 * 4) + 3 * 32 * 8)


def test_fit_of_an_sae_by_hand():
    settings = {"algorithm": "sae", "architecture": "topk", "training_samples": 1000}
    settings |= {"batch_size": 100, "measure_every": 500}
    work = count_fit(settings, n_atoms=32, k=4, d=8, n_train=1000, n_heldout=10)
    both = 2 * 2 * 8 * 32  # encoder and decoder
    assert work.products == 3 * 1000 * both + 3 * 10 * both
    assert work.memory == 4 * (8 * 32 * 8 + 3 * 100 * 32)
    switch = {**settings, "architecture": "switch", "n_experts": 4}
    assert count_coding(switch, 32, 4, 8).products == 2 * (8 * 32 / 4 + 8 * 4)


def test_evals_by_hand():
    core = {"texts": 10, "context_length": 8}
    assert count_eval("core", core, "encoder") == EvalTexts(80, 80, 80, 80)
    assert count_eval("core", core, "causal") == EvalTexts(160, 160, 160, 80, 80)
    absorption = count_eval("absorption", {"words_per_letter": 50}, "causal")
    assert absorption.stored == absorption.prepared / 90 == 1.2 * 26 * 50
    assert count_eval("absorption", {}, "causal").stored == 1.2 * 30_000
    bundled = {"train_size": 60, "test_size": 20, "context_length": 8}
    assert count_eval("sparse_probing", bundled, "causal").prepared == 3 * 40 * 8
    hub = count_eval("sparse_probing", {**bundled, "data": "hub"}, "causal")
    assert (hub.prepared, hub.held) == (36 * 40 * 8, 5 * 40 * 8)
    assert count_eval("meta_structure", {}, "causal") == EvalTexts()


def test_seconds_follow_from_rates():
    device = Device("test", peak=100.0, model=0.5, products=0.25, steps=0.1)
    assert device.count_seconds(Work(100, 100, 100, host_seconds=1)) == 1 + 2 + 4 + 10


def test_stages_of_a_small_experiment_by_hand():
    config = {
        "model": {"name": "m", "dtype": "float16"},
        "activations": {
            "source": "model", "layers": [2], "n_train_tokens": 900, "n_heldout_tokens": 100,
            "slices": 2, "batch_size": 4, "context_length": 8,
        },
        "experiment": "small",
        "methods": {"random": {"algorithm": "random"}},
        "fits": [{"methods": ["random"], "n_atoms": [32], "k": [4]}],
        "evaluation": {"evals": {"core": {"texts": 10, "context_length": 8}}},
    }  # fmt: skip
    fits = [SimpleNamespace(site="layer2", method="random", n_atoms=32, k=4)]
    sizes = ModelSizes(width=8, layers=4, parameters=1000)
    device = Device("test", 1.0, 1.0, 1.0, 1.0, disk=1e9, start=0, start_eval=0)
    parsed = parse(ExperimentConfig, config)
    stages = {s.name: s for s in estimate_stages(parsed, fits, sizes, device, "encoder")}
    assert list(stages) == ["extract", "shard", "fit controls", "prepare evals", "evaluate"]
    assert stages["extract"].seconds == 2 * 1000 * (2 / 4) * 1000
    assert stages["extract"].disk == stages["shard"].disk == 1000 * (8 * 4 + 12)
    assert stages["extract"].jobs == 2
    assert stages["prepare evals"].seconds == 2 * 1000 * (2 / 4) * 80
    assert stages["prepare evals"].disk == 80 * 8 * 4
    one = count_coding({"algorithm": "random"}, 32, 4, 8)
    coded = 100 + 80
    assert stages["evaluate"].seconds == (one.products + one.steps) * coded + 2 * 32 * 8 * 80

    stages = {
        s.name: s for s in estimate_stages(parsed, fits, sizes, device, "encoder", paged=fits)
    }
    # no text is described: the held-out rows
    assert stages["collect examples"].seconds == pytest.approx(
        100 * (2 * 1000 * (2 / 4) + one.products + one.steps)
    )
    assert stages["collect examples"].jobs == stages["render pages"].jobs == 1
    assert stages["render pages"].seconds == pytest.approx(32 * 0.005)
    text = {"sources": [{"kind": "sae_probes"}], "max_documents": 50, "heldout_fraction": 0.2}
    for pages, tokens in (
        ({}, 50 * 0.2 * 8),
        ({"examples": {"split": "train"}}, 50 * 0.8 * 8),
        ({"examples": {"n_tokens": 7}}, 7),
    ):
        parsed = parse(ExperimentConfig, config | {"text": text, "pages": pages})
        read = {s.name: s for s in estimate_stages(parsed, fits, sizes, device, "encoder", fits)}
        assert read["collect examples"].seconds == pytest.approx(
            tokens * (2 * 1000 * (2 / 4) + one.products + one.steps)
        )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_config_can_be_estimated(path):
    experiment = Experiment(yaml.safe_load(path.read_text()))
    fits, model = experiment.fits, experiment.config.model
    # a model that is neither here nor described has the sizes of a small one
    sizes = (find_sizes(model) if model else None) or ModelSizes(768, 12, 10**8)
    for device in DEVICES.values():
        pages = Pages(experiment)
        paged = [fit for site in pages.sites for fit in pages.list_fits(site)]
        stages = estimate_stages(experiment.config, fits, sizes, device, paged=paged)
        by_name = {stage.name: stage for stage in stages}
        assert ("collect examples" in by_name) == bool(pages.sites)
        if pages.sites:
            assert by_name["collect examples"].jobs == len(pages.sites)
        assert sum(s.jobs for s in stages if s.name.startswith(("fit", "train"))) == len(fits)
        assert all(stage.seconds > 0 and stage.memory > 0 for stage in stages)


def test_default_experiment_as_it_was_timed():
    # 92 jobs took 11 min 53 s on 2 cores, with these fits and evals.
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config.pop("ground_truth", None)
    evals = config["evaluation"]["evals"]
    config["evaluation"]["evals"] = {
        name: evals[name] for name in ("core", "sparse_probing_sae_probes")
    }
    config["methods"] = {n: s for n, s in config["methods"].items() if s["algorithm"] != "permuted"}
    config["fits"] = [
        grid for grid in config["fits"] if set(grid["methods"]) <= set(config["methods"])
    ]
    sizes = find_sizes(config["model"])
    assert sizes == ModelSizes(384, 6, 22713728)
    experiment = Experiment(config)
    stages = estimate_stages(experiment.config, experiment.fits, sizes, DEVICES["cpu"], "encoder")
    seconds = sum(stage.seconds for stage in stages)
    assert 713 / 2 < seconds / 2 < 713 * 2


def test_unknown_sizes_are_asked_for():
    config = Experiment(yaml.safe_load((ROOT / "experiments/own-model.yaml").read_text())).config
    with pytest.raises(ValueError, match=r"^model\.expect: expected width, layers and parameters"):
        list_sites(config, None)
    assert find_sizes({"name": "someone/else", "revision": "main"}) is None


def test_a_converted_model_costs_its_weights():
    experiment = Experiment(yaml.safe_load((ROOT / "experiments/smollm2.yaml").read_text()))
    sizes = find_sizes(experiment.config.model)
    assert sizes == ModelSizes(576, 30, 134_515_008)
    stages = estimate_stages(experiment.config, experiment.fits, sizes, DEVICES["cpu"])
    converted = next(stage for stage in stages if stage.name == "convert model")
    assert (converted.jobs, converted.disk) == (1, 4 * sizes.parameters)
    assert converted.memory > converted.disk


def test_script_says_what_it_assumes():
    command = [sys.executable, "-m", "dbksvd.command.main", "estimate"]
    command += ["experiments/gemma-2-2b.yaml"]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "gemma-2-2b on one H100" in done.stdout
    assert "nothing was measured on a GPU" in done.stdout
    for stage in (
        "extract",
        "fit DB-KSVD",
        "train SAEs",
        "prepare evals",
        "evaluate",
        "collect examples",
        "render pages",
        "all",
    ):
        assert any(line.startswith(stage) for line in done.stdout.splitlines())


@pytest.mark.parametrize("ending", ["npy", "h5", "safetensors"])
def test_ready_activations_tell_their_width(tmp_path: Path, ending: str):
    path, x = tmp_path / f"x.{ending}", np.zeros((1000, 24), np.float32)
    if ending == "npy":
        np.save(path, x)
    elif ending == "h5":
        with h5py.File(path, "w") as file:
            file["activations"] = x
    else:
        save_file({"activations": x}, path)
    config: dict[str, Any] = {
        "experiment": "ready",
        "activations": {
            "source": "files",
            "files": {"path": str(path)},
            "n_train_tokens": 800,
            "n_heldout_tokens": 200,
        },
        "methods": {"a": {"algorithm": "dbksvd"}, "b": {"algorithm": "identity"}},
        "fits": [{"methods": ["a", "b"], "n_atoms": [24], "k": [2]}],
    }
    experiment = Experiment(config)
    [rows] = list_sites(experiment.config, None)
    assert (str(rows.site), rows.width, rows.n_train, rows.n_heldout) == ("files", 24, 800, 200)
    stages = estimate_stages(experiment.config, experiment.fits, None, DEVICES["cpu"])
    by_name = {stage.name: stage for stage in stages}
    assert by_name["extract"].disk == by_name["shard"].disk == 1000 * (24 * 4 + 12)
    assert by_name["fit DB-KSVD"].jobs == by_name["fit controls"].jobs == 1
    path.unlink()
    with pytest.raises(ValueError, match=r"^activations\.files\.path: expected a file"):
        list_sites(experiment.config, None)
