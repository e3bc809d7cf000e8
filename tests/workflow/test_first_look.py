"""The dictionaries that a run makes first, and the table and figure of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from running import CONFIG, ROOT, make_environment
from torch.nn.functional import normalize

from dbksvd.base.layout import expand_rows
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.report.first_look import measure_first
from workflow.experiment import Experiment
from workflow.first_look import choose_first, describe_missing


def load(name: str, **changes: object) -> Experiment:
    return Experiment(yaml.safe_load((ROOT / name).read_text()) | changes)


def test_the_default_run_begins_with_one_seed_of_the_size_that_most_have():
    experiment = load("config.yaml")
    first = choose_first(experiment)
    assert {(fit.site, fit.n_atoms, fit.k, fit.seed) for fit in first} == {("layer4", 512, 16, 0)}
    assert {"dbksvd", "dbksvd-signed", "topk-sae"} <= {fit.method for fit in first}
    assert set(first) < set(experiment.fits)
    note = describe_missing(experiment, first)
    assert note.startswith(f"First look: {len(first)} of {len(experiment.fits)} dictionaries")
    assert "methods dbksvd-mean, grown, consensus" in note
    assert not any(f" {fit.method}," in note for fit in first)


def test_no_first_look_where_it_would_be_most_of_the_run():
    assert choose_first(load("experiments/tiny.yaml")) == []


def test_methods_that_begin_from_others_are_not_first():
    given = yaml.safe_load((ROOT / "config.yaml").read_text())
    given["fits"][0]["methods"].insert(0, "permuted-topk")
    first = choose_first(Experiment(given))
    assert "permuted-topk" not in {fit.method for fit in first}


def test_only_fits_of_the_run_are_first():
    experiment = load("experiments/places.yaml")
    first = choose_first(experiment)
    assert {fit.method for fit in first} == {"dbksvd", "topk-sae", "random"}
    assert set(first) < set(experiment.fits)


def test_preparations_begin_after_the_first_shards(tmp_path: Path):
    """An eval that began in the gap between two extractions would hold a core that these need."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--dag",
         "--cores", "1", "--configfile", str(ROOT / "config.yaml"), "--directory", str(tmp_path)],
        capture_output=True, text=True, check=True, env=make_environment(),
    )  # fmt: skip
    names = dict(re.findall(r'^\t?\s*(\d+)\[label *= *"(\w+)', done.stdout, re.MULTILINE))
    edges = re.findall(r"^\t?\s*(\d+) -> (\d+)", done.stdout, re.MULTILINE)
    before = {names[to]: set() for _, to in edges}
    for came, to in edges:
        before[names[to]].add(names[came])
    assert "shard_activations" in before["prepare_evaluation"]
    assert "prepare_evaluation" not in before["fit_dictionary"]


class Shards:
    """Two hundred samples that answer as held-out shards do."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows, self.width = rows, rows.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int) -> torch.Tensor:
        return self.rows[start:stop]


@pytest.fixture
def measured(tmp_path: Path) -> pd.DataFrame:
    """Scores of two dictionaries, one of 2 and one of 4 non-zeros."""
    generator = torch.Generator().manual_seed(0)
    atoms = normalize(torch.randn(16, 8, generator=generator), dim=1)
    x = torch.randn(200, 8, generator=generator)
    for k in (2, 4):
        folder = tmp_path / f"layer4/dictionaries/toy/m16-k{k}-s0"
        Dictionary(atoms, torch.zeros(8), PursuitSettings(k)).save(folder)
        (folder / "fit.json").write_text(json.dumps({"seconds": 1.5, "encoder_flops": 100.0}))
    fits = [["layer4", "toy", 16, k, 0] for k in (2, 4)]
    return measure_first(
        expand_rows(json.dumps({"folder": str(tmp_path), "fits": fits})), Shards(x)
    )


def test_scores_are_those_of_the_whole_table(measured: pd.DataFrame):
    l0 = measured[measured["metric"] == "l0"].set_index("k")["value"]
    assert 1 < l0[2] <= 2 < l0[4] <= 4
    explained = measured[measured["metric"] == "explained_variance"].set_index("k")["value"]
    assert 0 < explained[2] < explained[4] <= 1
    assert measured[measured["eval"] == "fit"]["metric"].unique().tolist() == [
        "seconds",
        "encoder_flops",
    ]


def test_table_and_figure_say_that_they_are_early(measured: pd.DataFrame, tmp_path: Path):
    scores, note = tmp_path / "scores.csv", "First look: 2 of 9 dictionaries."
    measured.to_csv(scores, index=False)
    settings = load(CONFIG).drawing_settings()
    settings = json.dumps(json.loads(settings) | {"methods": ["toy"], "labels": {"toy": "Toy"}})
    table = ["--table", "summary", "--source", scores, "--methods", json.dumps(["toy"])]
    table += ["--csv", tmp_path / "table.csv", "--markdown", tmp_path / "table.md"]
    figure = ["--figure", "variance_explained", "--settings", settings, "--tables", scores]
    figure += ["--output", tmp_path / "figure.svg"]
    environment = make_environment() | {"PYTHONPATH": str(ROOT)}
    for script, arguments in (("make_table", table), ("draw_figure", figure)):
        command = [sys.executable, ROOT / f"scripts/{script}.py", *arguments, "--note", note]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
    lines = (tmp_path / "table.md").read_text().split("\n\n")
    assert lines[1].strip() == f"**{note}**"
    assert note in (tmp_path / "figure.svg").read_text()


def test_no_option_stands_without_its_value_where_a_param_is_empty():
    """Snakemake quotes no empty string: ``--note {params.note:q}`` would take the next option."""
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    empty = set(re.findall(r"^ +(\w+)=\"\",$", rules, re.MULTILINE))
    assert "note" in empty
    for name in empty:
        assert f" {{params.{name}:q}}" not in rules
        assert f"={{params.{name}:q}}" in rules
