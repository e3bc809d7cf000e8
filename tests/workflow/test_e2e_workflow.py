"""Fits that run the model: what a config may not say, what they wait for, what they are given."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import copy_project, run_fork

from dbksvd.base.settings import SettingsError
from dbksvd.estimates.devices import DEVICES
from dbksvd.estimates.stages import estimate_stages
from dbksvd.models.sizes import ModelSizes
from workflow.experiment import Experiment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "experiments/smollm2.yaml").read_text())


def find_problems(config: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Experiment(config)
    return [problem for problem in caught.value.problems if "e2e" in problem]


def test_what_runs_no_causal_model_is_named(config: dict[str, Any]):
    config["methods"] = {
        "topk-sae": config["methods"]["topk-sae"],
        "topk-e2e": {"algorithm": "e2e", "of": "topk-sae"},
    }
    config["fits"] = [{"methods": ["topk-e2e"], "n_atoms": [64], "k": [4], "seeds": [0]}]
    config["evaluation"] = {"evals": {}}
    Experiment(config)
    start = "methods.topk-e2e: expected"
    places = {
        "layers": ([0, 1], "activations.layers: [0, 1]"),
        "sites": (["residual", "mlp"], "activations.sites: ['residual', 'mlp']"),
        "hook_module": ("model.layers.3.mlp", "activations.hook_module: model.layers.3.mlp"),
    }
    for key, (value, told) in places.items():
        changed = config | {"activations": config["activations"] | {key: value}}
        assert find_problems(changed) == [
            f"{start} the residual stream behind blocks for e2e, got {told}"
        ]
    encoder = yaml.safe_load((ROOT / "config.yaml").read_text())["model"]
    (problem,) = find_problems(config | {"model": encoder})
    assert problem.startswith(f"{start} a causal language model for e2e, got")
    ready = {"source": "files", "files": {"path": "x.npy"}}
    changed = {**config, "activations": ready}
    del changed["model"], changed["text"]
    assert f"{start} activations.source: model for e2e, which runs the model, got files" in (
        find_problems(changed)
    )
    config["methods"]["topk-sae"] = {"algorithm": "sae", "architecture": "standard"}
    (problem,) = find_problems(config)
    assert problem.startswith("methods.topk-e2e.of: expected a dictionary that keeps its number")


def test_samples_with_known_features_have_no_model_to_run(config: dict[str, Any]):
    drawn = yaml.safe_load((ROOT / "config.yaml").read_text())["ground_truth"]
    config["ground_truth"] = drawn | {
        "fits": [{"methods": ["topk-e2e"], "n_atoms": [64], "k": [4], "seeds": [0]}]
    }
    (problem,) = find_problems(config)
    assert problem == (
        "ground_truth.fits[0].methods: expected one that runs no model, got 'topk-e2e'"
    )


def test_the_model_is_counted_and_behind_a_later_layer_less_of_it(config: dict[str, Any]):
    seconds = []
    for layer in (3, 27):
        config["activations"]["layers"] = [layer]
        experiment = Experiment(config)
        sizes = ModelSizes(576, 30, 134_515_008)
        stages = estimate_stages(experiment.config, experiment.fits, sizes, DEVICES["cpu"])
        (stage,) = (stage for stage in stages if stage.name == "train end to end")
        assert stage.jobs == 4
        seconds.append(stage.seconds)
    assert seconds[0] > 1.5 * seconds[1]


def test_the_fit_waits_for_text_and_model_and_is_told_of_them(
    config: dict[str, Any], tmp_path: Path
):
    folder = copy_project(tmp_path / "project")
    (folder / "spliced.yaml").write_text(yaml.safe_dump(config))
    site = "results/smollm2/layer15/dictionaries"
    seals = [f"{site}/{name}/m1024-k32-s0/fit.json" for name in ("topk-e2e", "topk-sae")]
    run = ("--dry-run", "--printshellcmds", "--", *seals)
    status, output = run_fork(folder, *run, config="spliced.yaml")
    assert status == 0, output
    jobs = {
        name: job
        for job in output.split("rule fit_dictionary:")[1:]
        for name in ("topk-e2e", "topk-sae")
        if f"output: {site}/{name}/" in job
    }
    (inputs,) = (line for line in jobs["topk-e2e"].splitlines() if line.startswith("    input: "))
    model = "results/smollm2/model/SmolLM2-135M-Instruct.Q4_1"
    needed = (seals[1], "results/smollm2/text/seal.json", f"{model}/model.safetensors")
    assert all(file in inputs for file in needed)
    (command,) = (line for line in jobs["topk-e2e"].splitlines() if "--model" in line)
    words = shlex.split(command)
    given = json.loads(words[words.index("--model") + 1])
    assert given["layer"] == 15
    assert given["model"]["name"] == model
    assert words[words.index("--text") + 1] == "results/smollm2/text"
    assert "--model" not in jobs["topk-sae"]
    assert "results/smollm2/text" not in jobs["topk-sae"]
