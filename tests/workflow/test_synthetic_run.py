"""A generative model with known features goes through the whole DAG, truth kept from the fits."""

import copy
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from running import ROOT, copy_project, plan, run_fork, run_snakemake

from dbksvd.base.settings import SettingsError
from workflow.experiment import Experiment

SYNTHETIC = [
    path
    for path in sorted((ROOT / "experiments").glob("*.yaml"))
    if "source: synthetic" in path.read_text()
]
TINY = {
    "experiment": "truth",
    "activations": {
        "source": "synthetic",
        "synthetic": {
            "kind": "expert_mixture",
            "num_components": 3,
            "features_per_component": 7,
            "hidden_dim": 24,
            "subspace_dim": 8,
            "k": 2,
            "magnitude": [1.0, 0.2],
            "component_magnitude": 1.0,
            "seed": 0,
        },
        "n_train_tokens": 3000,
        "n_heldout_tokens": 500,
        "slices": 2,
    },
    "shards": {"rows_per_shard": 2000},
    "methods": {
        "dbksvd": {"algorithm": "dbksvd", "nonnegative": True, "max_iter": 2},
        "random": {"algorithm": "random", "nonnegative": False},
    },
    "fits": [{"methods": ["dbksvd", "random"], "n_atoms": [24], "k": [3], "seeds": [0]}],
    "evaluation": {"seed": 0, "evals": {"ground_truth": {"batch_rows": 256}}},
    "encoders": {"methods": ["dbksvd"], "encoders": ["own", "ols_mean", "lasso"]},
    "figures": {"context": "notebook", "dpi": 60},
    "pages": None,
}


def test_synthetic_experiments_are_shipped():
    assert {path.stem for path in SYNTHETIC} >= {
        "synthetic-small",
        "synthetic-16k",
        "toy-kron",
        "toy-switch",
    }


@pytest.mark.parametrize("path", SYNTHETIC, ids=lambda path: path.stem)
def test_shipped_experiment_can_be_planned(path: Path):
    planned = plan(ROOT, str(path.relative_to(ROOT)))
    experiment = Experiment(yaml.safe_load(path.read_text()))
    if planned:  # empty where this checkout has run it
        assert planned["score_ground_truth"] == len(experiment.fits)
        assert planned["draw_figure"] == len(experiment.figures)
        assert "extract_activations" not in planned


@pytest.mark.slow
def test_from_model_to_figure(tmp_path: Path):
    folder = copy_project(tmp_path / "project")
    (folder / "truth.yaml").write_text(yaml.safe_dump(TINY))
    done = run_snakemake(folder, "--cores", "2", config="truth.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    results = folder / "results/truth"
    scores = pd.read_csv(results / "scores.csv").set_index(["method", "eval", "metric"])["value"]
    assert scores["dbksvd", "ground_truth", "mcc"] > scores["random", "ground_truth", "mcc"] + 0.1
    assert scores["dbksvd", "ground_truth", "latents"] == 24
    assert scores["random", "ground_truth", "latents"] == 48  # signed: sign-split
    assert scores["dbksvd", "ground_truth", "explained_variance"] == pytest.approx(
        scores["dbksvd", "heldout", "explained_variance"], abs=1e-3
    )
    assert "MCC" in (results / "table.md").read_text()
    assert {path.name for path in (results / "figures").glob("*.png")} == {
        f"{name}.png" for name in Experiment(copy.deepcopy(TINY)).figures
    }
    coded = pd.read_csv(results / "encoder_scores.csv").set_index(["method", "encoder", "metric"])
    assert coded.loc[("dbksvd", "own", "f1"), "value"] == pytest.approx(
        scores["dbksvd", "ground_truth", "f1"], abs=1e-3
    )
    for encoder in ("ols_mean", "lasso"):
        assert coded.loc[("dbksvd", encoder, "l0"), "value"] == pytest.approx(3, rel=0.02)
    assert "OLS, one threshold" in (results / "encoders.md").read_text()
    # Fits are given the shards alone, and those hold no truth.
    for path in (results / "synthetic/shards").iterdir():
        assert path.suffix in {".h5", ".json"}
    commands = [rule for rule in read_commands(folder) if "fit_dictionary.py" in rule]
    assert not [command for command in commands if "truth/truth-" in command or "model" in command]
    assert plan(folder, "truth.yaml") == {}
    config = json.loads(json.dumps(TINY))
    config["activations"]["synthetic"]["sample_seed"] = 5
    (folder / "truth.yaml").write_text(yaml.safe_dump(config))
    planned = plan(folder, "truth.yaml")
    assert planned["draw_synthetic_activations"] == 2
    assert "make_synthetic_model" not in planned


def read_commands(folder: Path) -> list[str]:
    status, output = run_fork(folder, "--forceall", "-n", "-p", config="truth.yaml")
    assert status == 0, output
    commands = [line for line in output.splitlines() if "python " in line]
    assert commands
    return commands


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            "evaluation/evals",
            {"ground_truth": {}, "core": {"datasets": ["a"], "texts": 1, "context_length": 9}},
            r"^evaluation\.evals: expected ground_truth alone .*, got ground_truth, core$",
        ),
        ("evaluation/evals/ground_truth", {"rows": 2}, r"ground_truth\.rows: unknown key"),
        ("activations/synthetic", None, r"^activations\.synthetic: expected object, got None$"),
        ("activations/synthetic/kind", "x", r"^activations\.synthetic\.kind: expected one of"),
        (
            "activations/synthetic/num_component",
            3,
            r"num_component: unknown key, did you mean 'num_components'\?$",
        ),
        ("activations/synthetic/k", 8, r"\.k: expected at most features_per_component = 7, got 8$"),
        ("activations/synthetic/subspace_dim", 25, r"expected at most hidden_dim = 24, got 25$"),
    ],
)
def test_wrong_setting_is_named(keys: str, value: Any, message: str):
    config = copy.deepcopy(TINY)
    *path, last = keys.split("/")
    section: Any = config
    for key in path:
        section = section[key]
    section[last] = value
    with pytest.raises(SettingsError, match=message):
        Experiment(config)


def test_blocks_must_divide_the_features():
    config = yaml.safe_load((ROOT / "experiments/toy-kron.yaml").read_text())
    config["activations"]["synthetic"]["block_size"] = 17
    with pytest.raises(
        SettingsError, match=r"block_size: expected a divisor of num_features = 256"
    ):
        Experiment(config)


def test_fit_with_the_seed_of_the_features_is_refused():
    config = yaml.safe_load((ROOT / "experiments/synthetic-small.yaml").read_text())
    config["fits"][0]["seeds"] = [42]
    with pytest.raises(SettingsError, match=r"synthetic\.seed: expected a seed that no fit has"):
        Experiment(config)


@pytest.mark.parametrize("source", ["model", "files"])
def test_truth_is_not_scored_where_it_is_not_known(source: str):
    config = yaml.safe_load((ROOT / "experiments/tiny.yaml").read_text())
    if source == "files":
        config["activations"] = {"source": source, "files": {"path": "x.npy"}}
        del config["text"], config["model"]
    config["evaluation"]["evals"] = {"ground_truth": {}}
    with pytest.raises(SettingsError, match=rf"ground_truth: expected .*, got {source}$"):
        Experiment(config)
