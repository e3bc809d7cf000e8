"""Fits that extract their training rows themselves, through the real Snakefile."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from running import ROOT, copy_project, plan, run_snakemake

from dbksvd.base.settings import SettingsError
from workflow.experiment import Experiment

CONFIG = "streamed.yaml"
STREAM = {"n_tokens": 4000, "block_rows": 1000, "seed": 1}


def make_config() -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "experiments/tiny.yaml").read_text())
    config |= {"experiment": "streamed", "pages": None}
    config["activations"] |= {"n_train_tokens": 1200, "slices": 1, "stream": dict(STREAM)}
    names = ("dbksvd", "topk-sae")
    config["methods"] = {name: config["methods"][name] for name in names}
    config["methods"]["topk-sae"] |= {"training_samples": 4000, "batch_size": 250}
    config["fits"] = [{"methods": list(names), "n_atoms": [64], "k": [4], "seeds": [0]}]
    return config


def list_seals() -> list[str]:
    return [
        f"results/streamed/layer4/dictionaries/{method}/m64-k4-s0/fit.json"
        for method in ("dbksvd", "topk-sae")
    ]


@pytest.mark.slow
def test_fits_of_a_stream_from_text_to_dictionary(tmp_path: Path):
    folder = copy_project(tmp_path / "a project")
    config = make_config()
    (folder / CONFIG).write_text(yaml.safe_dump(config))
    # hardware of a profile: two ranks for each fit, on two cores
    ranks = ("--set-resources", "fit_dictionary:ranks=2", "--set-threads", "fit_dictionary=2")
    done = run_snakemake(folder, *ranks, "--cores", "2", *list_seals(), config=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    results = folder / "results/streamed/layer4"
    manifest = json.loads((results / "shards/manifest.json").read_text())
    assert manifest["splits"]["train"]["rows"] == 1200  # all that is stored
    for seal in map(folder.joinpath, list_seals()):
        content = json.loads(seal.read_text())
        assert content["stream"] == STREAM
        assert content["ranks"] == 2
        assert content["samples_seen"] > manifest["splits"]["train"]["rows"]
        log = pd.read_csv(seal.parent / "log.csv")
        assert log["fve_heldout"].iloc[-1] > 0.1
    # hardware is no reason to run again, and a fit of one process is one of the same rows
    left = plan(folder, CONFIG)
    assert "fit_dictionary" not in left
    assert "extract_activations" not in left
    config["activations"]["stream"]["seed"] = 2
    (folder / CONFIG).write_text(yaml.safe_dump(config))
    left = plan(folder, CONFIG)
    assert left["fit_dictionary"] == 2
    assert "extract_activations" not in left


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config["activations"]["stream"].pop("block_rows"),
            r"^activations\.stream\.block_rows: missing key",
        ),
        (
            lambda config: config["activations"]["stream"].update(n_tokens=0),
            r"^activations\.stream\.n_tokens: expected at least 1, got 0",
        ),
        (
            lambda config: config["activations"].update(source="files", files={"path": "a.npy"}),
            r"^activations\.stream: expected none for activations\.source: files",
        ),
    ],
)
def test_streams_that_cannot_be_are_refused(change: Any, message: str):
    config = copy.deepcopy(make_config())
    change(config)
    if config["activations"]["source"] == "files":
        config["evaluation"]["evals"] = {}
    with pytest.raises(SettingsError) as caught:
        Experiment(config)
    assert re.search(message, str(caught.value)), caught.value


def test_only_the_fits_know_of_the_stream():
    config = make_config()
    streamed = Experiment(config)
    settings = json.loads(streamed.stream("layer4") or "")
    assert settings["stream"] == STREAM
    assert settings["layer"] == 4
    del config["activations"]["stream"]
    stored = Experiment(config)
    assert stored.stream("layer4") is None
    assert streamed.stream("synthetic") is None
    assert stored.extraction("layer4") == streamed.extraction("layer4")
