from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dbksvd.base.files import hash_files, write_json
from dbksvd.base.layout import KEYS
from dbksvd.evaluation.saebench.results import read_parts
from dbksvd.report.collect import collect_curves, collect_routing, collect_usage

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "collect_scores.py"
RESULT = "d_custom_sae_eval_results.json"
METRICS = {
    "explained_variance": 0.9,
    "nearest_atom_cosine": None,
    "n_atoms": 64,
    "usage": [1, 2],
    "seconds": {"core": 1.0},
}
CORE = {
    "eval_config": {"compute_kl": False, "compute_ce_loss": False},
    "eval_result_metrics": {
        "model_behavior_preservation": {"kl_div_score": -1.0},
        "model_performance_preservation": {"ce_loss_score": -1.0},
        "reconstruction_quality": {"explained_variance": 1.3},
        "sparsity": {"l0": 8},
    },
}
PROBES = {
    "eval_config": {},
    "eval_result_metrics": {
        "llm": {"llm_test_accuracy": 0.8},
        "sae": {"sae_top_1_test_accuracy": 0.6, "sae_top_50_test_accuracy": None},
    },
}
FIT = {"seconds": 12.5, "iterations": 7, "seed": 0, "stop_reason": "done", "sha256": {"a": "b"}}


def write_folders(root: Path, seed: int = 0) -> dict:
    name = f"pursuit/m64-k8-s{seed}"
    evaluation, dictionary = (
        root / f"layer4/evaluations/{name}",
        root / f"layer4/dictionaries/{name}",
    )
    files = {
        evaluation / "metrics.json": METRICS,
        evaluation / "core" / RESULT: CORE,
        evaluation / "core" / "corrections.json": {"explained_variance_corrected": 0.93},
        evaluation / "sparse_probing_sae_probes" / RESULT: PROBES,
        dictionary / "fit.json": FIT,
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return {"dictionary": str(dictionary), "evaluation": str(evaluation)}


def collect(root: Path, *seeds: int) -> subprocess.CompletedProcess:
    rows = {"folder": str(root), "fits": [["layer4", "pursuit", 64, 8, seed] for seed in seeds]}
    command = [sys.executable, SCRIPT, "--rows", json.dumps(rows), "--output", root / "scores.csv"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)


def test_one_row_for_each_dictionary_and_metric(tmp_path):
    for seed in (0, 1):
        write_folders(tmp_path, seed)
    done = collect(tmp_path, 0, 1)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "scores.csv")
    assert list(table) == ["site", "method", "n_atoms", "k", "seed", "eval", "metric", "value"]
    first = table[table["seed"] == 0]
    assert {(row.eval, row.metric): row.value for row in first.itertuples()} == {
        ("heldout", "explained_variance"): 0.9,
        ("core", "explained_variance"): 1.3,
        ("core", "explained_variance_corrected"): 0.93,
        ("core", "l0"): 8,
        ("sparse_probing_sae_probes", "llm_test_accuracy"): 0.8,
        ("sparse_probing_sae_probes", "sae_top_1_test_accuracy"): 0.6,
        ("fit", "seconds"): 12.5,
        ("fit", "iterations"): 7,
    }
    assert len(table) == 2 * len(first)
    assert not table.duplicated(["site", "method", "n_atoms", "k", "seed", "eval", "metric"]).any()
    assert "2 dictionaries, 16 rows, 8 empty values left out" in done.stderr


@pytest.mark.parametrize(
    "name", ["metrics.json", f"core/{RESULT}", "core/corrections.json", "fit.json"]
)
def test_cut_file_is_named(tmp_path, name):
    row = write_folders(tmp_path)
    path = Path(row["dictionary" if name == "fit.json" else "evaluation"]) / name
    path.write_text(path.read_text()[:10])
    done = collect(tmp_path, 0)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path}: expected JSON")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "scores.csv").exists()
    # the workflow makes its own files again where they are missing
    assert path.exists() == (path.parent.name == "core")


def test_scores_that_were_changed_are_named_and_evaluated_anew(tmp_path):
    evaluation = Path(write_folders(tmp_path)["evaluation"])
    write_json(evaluation / "core" / "seal.json", {"sha256": hash_files(evaluation / "core")})
    assert collect(tmp_path, 0).returncode == 0
    path = evaluation / "core" / RESULT
    path.write_text(path.read_text().replace("1.3", "1.4"))
    done = collect(tmp_path, 0)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path}: expected sha256 ")
    # what the workflow makes again, where it is missing
    assert "metrics.json is now metrics.json.damaged" in done.stderr
    assert not (evaluation / "metrics.json").exists()


def test_missing_file_is_named(tmp_path):
    row = write_folders(tmp_path)
    (Path(row["evaluation"]) / "metrics.json").unlink()
    done = collect(tmp_path, 0)
    assert done.returncode == 1
    assert str(Path(row["evaluation"]) / "metrics.json") in done.stderr


def test_dictionary_without_fit_or_evals(tmp_path):
    row = write_folders(tmp_path)
    (Path(row["dictionary"]) / "fit.json").unlink()
    for path in sorted(Path(row["evaluation"]).glob("*/*")):
        path.unlink()
        if not list(path.parent.iterdir()):
            path.parent.rmdir()
    assert collect(tmp_path, 0).returncode == 0
    assert set(pd.read_csv(tmp_path / "scores.csv")["eval"]) == {"heldout"}


def test_curves_usage_and_routing_have_the_keys_of_each_dictionary(tmp_path):
    row = write_folders(tmp_path)
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"routing": [[3, 0], [1, 2]]}))
    row |= {"site": "layer4", "method": "pursuit", "n_atoms": 64, "k": 8, "seed": 0}
    row["ground_truth"] = str(truth)
    metrics = Path(row["evaluation"]) / "metrics.json"
    metrics.write_text(json.dumps({**METRICS, "samples": 500}))
    (Path(row["dictionary"]) / "log.csv").write_text("n_atoms,seconds\n32,0.5\n64,1.5\n")

    keys = ["layer4", "pursuit", 64, 8, 0]
    curves = collect_curves([row, row])
    assert list(curves) == [*KEYS, "n_atoms_now", "seconds"]
    assert curves.to_numpy().tolist() == 2 * [[*keys, 32, 0.5], [*keys, 64, 1.5]]
    usage = collect_usage([row])
    assert list(usage) == [*KEYS, "count", "tokens"]
    assert usage.to_numpy().tolist() == [[*keys, 1, 500], [*keys, 2, 500]]
    routing = collect_routing([row, {**row, "ground_truth": None}])
    assert list(routing) == [*KEYS, "component", "expert", "samples"]
    assert routing["samples"].tolist() == [3, 0, 1, 2]
    assert routing["expert"].tolist() == [0, 1, 0, 1]


def test_parts_have_rows_of_their_own_and_further_splits_are_in_the_means(tmp_path):
    row = write_folders(tmp_path)
    folder = Path(row["evaluation"])
    metrics = METRICS | {
        "parts": {"explained_variance": {"documents-00": 0.8, "documents-01": 1.0}}
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    details = [
        {"dataset_name": "a", "sae_top_1_test_accuracy": 0.5, "llm_test_accuracy": 0.8},
        {"dataset_name": "b", "sae_top_1_test_accuracy": 0.7, "llm_test_accuracy": 0.8},
    ]
    probes = folder / "sparse_probing_sae_probes"
    (probes / RESULT).write_text(json.dumps(PROBES | {"eval_result_details": details}))
    assert collect(tmp_path, 0).returncode == 0
    values = read_values(tmp_path)
    assert values["heldout", "explained_variance@documents-01"] == 1.0
    name = "sae_top_1_test_accuracy"
    of_probes = {metric: value for (e, metric), value in values.items() if e == probes.name}
    expected = {"llm_test_accuracy": 0.8, name: 0.6, f"{name}@a": 0.5, f"{name}@b": 0.7}
    assert of_probes == pytest.approx(expected)

    write_json(probes / "resplits.json", {name: {"a": [0.6, 0.7], "b": [0.7, 0.4]}})
    assert collect(tmp_path, 0).returncode == 0
    values = read_values(tmp_path)
    assert values[probes.name, f"{name}@a"] == pytest.approx(0.6)  # of .5, .6 and .7
    assert values[probes.name, f"{name}@b"] == pytest.approx(0.6)
    assert values[probes.name, name] == pytest.approx(0.6)
    assert values[probes.name, f"{name}_own_split"] == 0.6


def test_classes_of_the_only_data_set_are_parts_and_what_is_no_mean_has_none(tmp_path):
    row = write_folders(tmp_path)
    folder = Path(row["evaluation"]) / "sparse_probing_sae_probes"
    by_class = {"news_results": {"sae_top_1_test_accuracy": {"0": 0.4, "1": 0.8}}}
    content = PROBES | {"eval_result_unstructured": by_class}
    (folder / RESULT).write_text(json.dumps(content))
    assert read_parts(folder) == {"sae_top_1_test_accuracy": {"0": 0.4, "1": 0.8}}
    by_class["news_results"]["sae_top_1_test_accuracy"]["1"] = 0.9
    (folder / RESULT).write_text(json.dumps(content))
    assert read_parts(folder) == {}


def read_values(folder: Path) -> dict[tuple[str, str], float]:
    table = pd.read_csv(folder / "scores.csv")
    return {(row.eval, row.metric): row.value for row in table.itertuples()}
