"""SIGKILL at any time: a rerun ends with the same bytes as a run that nothing disturbed."""

import re
from pathlib import Path

import pytest
import yaml
from running import SMALL, SMALL_TARGETS

from benchmarks.kills import Experiment, kill_at_checkpoints
from benchmarks.run_soak import soak
from benchmarks.same_results import compare_results, digest_results

KILLS = 6


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes(small_run: Path, small_project: Path, tmp_path: Path):
    reference = digest_results(small_run / "results" / "small")
    jobs = len(list((small_run / "results" / "small" / "benchmarks").rglob("*.jsonl")))
    disturbed = Experiment(small_project, SMALL, SMALL_TARGETS)
    output = tmp_path / "soak.csv"
    faults = soak(*(disturbed, reference), jobs=jobs, kills=KILLS, seed=1, output=output)
    assert len(faults) >= KILLS
    assert faults["survived"].all(), "\n".join(faults["why_not"].unique())
    assert faults["kind"].nunique() > 1
    assert faults["jobs_done"].max() > faults["jobs_done"].min()
    assert len(output.read_text().splitlines()) == len(faults) + 1
    assert not list(disturbed.results.rglob(".*"))
    assert not list(disturbed.results.rglob("checkpoint*.safetensors"))


# Long enough to be killed after the first checkpoint, which comes with the first step.
LONG = {"dbksvd": {"max_iter": 1200}, "topk-sae": {"training_samples": 800_000}}


@pytest.mark.slow
def test_a_killed_fit_goes_on_from_its_checkpoint(small_project: Path):
    """Results alone do not tell: a fit that begins again ends with the same bytes."""
    config = yaml.safe_load((small_project / SMALL).read_text())
    for method, changes in LONG.items():
        config["methods"][method].update(changes)
    (small_project / SMALL).write_text(yaml.safe_dump(config))
    fits = [f"synthetic/{{}}/{method}/m32-k4-s0" for method in LONG]
    results = small_project / "results/small"
    seals = [f"results/small/{fit.format('dictionaries')}/fit.json" for fit in fits]
    experiment = Experiment(small_project, SMALL, seals)
    checkpoints = [results / fit.format("checkpoints") for fit in fits]
    before = [(small_project / seal).read_bytes() for seal in seals]
    kill_at_checkpoints(experiment, checkpoints)
    # A failed run puts back what was there: the fits of the shorter settings.
    assert [(small_project / seal).read_bytes() for seal in seals] == before
    experiment.finish()
    assert not any((small_project / seal).read_bytes() in before for seal in seals)
    logs = results / "logs/synthetic/fit_dictionary"
    for method in LONG:
        log = (logs / f"{method}-m32-k4-s0.log").read_text()
        assert re.search(r"going on after (iteration )?[1-9]", log), log
    assert not any(folder.exists() for folder in checkpoints)


def test_the_comparison_sees_every_byte_but_times(tmp_path: Path):
    def write(name: str, content: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    write("fit.json", '{"seconds": 1.5, "sha256": {"a": "b"}, "of": [{"seconds": 2, "l0": 3}]}')
    write("log.csv", "iteration,seconds,fve\n1,0.5,0.25\n")
    write("scores.csv", "method,metric,value\na,seconds,1\na,l0,4\n")
    write("logs/fit.log", "10:00")
    write("shards/train.h5", "bytes")
    write("shards/train.seen.json", '{"state": [1, 2]}')
    write("budgets.csv", "seconds\n1\n")
    write("core/seal.json", '{"key": "a", "sha256": {"a_eval_results.json": "b"}}')
    before = digest_results(tmp_path)
    assert len(before) == 6

    write("fit.json", '{"seconds": 9, "sha256": {"a": "b"}, "of": [{"seconds": 8, "l0": 3}]}')
    write("log.csv", "iteration,seconds,fve\n1,0.75,0.25\n")
    write("scores.csv", "method,metric,value\na,seconds,2\na,l0,4\n")
    write("logs/fit.log", "11:00")
    write("budgets.csv", "seconds\n2\n")
    write("core/seal.json", '{"key": "a", "sha256": {"a_eval_results.json": "c"}}')
    assert compare_results(before, digest_results(tmp_path)) == []

    write("fit.json", '{"seconds": 9, "sha256": {"a": "c"}, "of": [{"seconds": 8, "l0": 3}]}')
    write("log.csv", "iteration,seconds,fve\n1,0.75,0.26\n")
    write("scores.csv", "method,metric,value\na,seconds,2\na,l0,5\n")
    write("shards/train.h5", "bytfs")
    write("core/seal.json", '{"key": "b", "sha256": {"a_eval_results.json": "c"}}')
    write("new.txt", "")
    (tmp_path / "budgets.csv").unlink()
    assert compare_results(before, digest_results(tmp_path)) == [
        "budgets.csv: missing",
        "core/seal.json: differs",
        "fit.json: differs",
        "log.csv: differs",
        "new.txt: new",
        "scores.csv: differs",
        "shards/train.h5: differs",
    ]
