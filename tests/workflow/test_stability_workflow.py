"""Seeds are compared where there are several; a new seed reruns what depends on it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import yaml
from running import SMALL, plan, run_snakemake

from dbksvd.base.files import check_folder
from workflow.experiment import Experiment


def read_small() -> dict:
    return yaml.safe_load(Path(__file__).with_name(SMALL).read_text())


def test_kinds_with_several_seeds_are_compared():
    config = read_small()
    config["fits"] = [
        {"methods": ["dbksvd", "topk-sae"], "n_atoms": [32], "k": [4], "seeds": [0]},
        {"methods": ["dbksvd"], "n_atoms": [32, 16], "k": [4], "seeds": [2, 1]},
    ]
    experiment = Experiment(config)
    seeds = {kind: [fit.seed for fit in group] for kind, group in experiment.seed_groups.items()}
    assert seeds == {
        ("synthetic", "dbksvd", 16, 4): [1, 2],
        ("synthetic", "dbksvd", 32, 4): [0, 1, 2],
    }
    assert experiment.facts.has_stability
    assert "stability" in experiment.figures
    assert json.loads(experiment.stability()) == {"rows": 50_000, "draws": 3}
    assert json.loads(experiment.rows(stability=True))["stability"] is True
    assert "stability" not in json.loads(experiment.rows())
    config["evaluation"]["stability"] = None
    experiment = Experiment(config)
    assert experiment.seed_groups == {}
    assert "stability" not in experiment.figures
    assert "stability" not in json.loads(experiment.rows(stability=True))


def test_a_second_seed_is_compared_with_the_first(small_project: Path):
    config = read_small()
    config["fits"].append({"methods": ["dbksvd"], "n_atoms": [32], "k": [4], "seeds": [1]})
    config["evaluation"]["stability"] = {"draws": 1}
    (small_project / SMALL).write_text(yaml.safe_dump(config))
    planned = plan(small_project, SMALL)
    assert planned["fit_dictionary"] == planned["measure_stability"] == 1
    results = small_project / "results/small"
    targets = ("results/small/table.csv", "results/small/stability.csv")
    done = run_snakemake(small_project, "--cores", "2", "--", *targets, config=SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    found = check_folder(results / "synthetic/stability/dbksvd/m32-k4/stability.json")
    assert found["seeds"] == [0, 1]
    assert found["scores"]["0"]["random_pw_mcc"] < found["pairs"][0]["pw_mcc"] < 1
    table = pd.read_csv(results / "table.csv").set_index("method")["stability (PW-MCC)"]
    assert table["dbksvd"].startswith(f"{found['pairs'][0]['pw_mcc']:.3f} ± 0.000")
    assert pd.isna(table["topk-sae"])
    assert pd.read_csv(results / "stability.csv")["atoms"].sum() == 2 * 32
    planned = plan(small_project, SMALL)
    assert not planned.keys() & {"measure_stability", "collect_stability", "collect_scores"}
