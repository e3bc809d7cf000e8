"""A failed run costs nothing that was good, ends with the reason, and leaves a table of the rest."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from running import CONFIG, SMALL, SMALL_TARGETS, plan, run_fork, run_snakemake

from benchmarks.same_results import compare_results, digest_results

RESULTS = Path("results/small")
TABLE = RESULTS / "table.csv"
LOG = RESULTS / "logs/synthetic/fit_dictionary/topk-sae-m32-k4-s0.log"
FIT = "fit_dictionary (site=synthetic, method=topk-sae, n_atoms=32, k=4, seed=0)"
TABLES = ("scores.csv", "table.csv", "table.md")


def change_config(path: Path, change: Any, name: str = "changed.yaml") -> str:
    config = yaml.safe_load(path.read_text())
    change(config)
    (path.parent / name).write_text(yaml.safe_dump(config, sort_keys=False))
    return str(Path(path.parent.name) / name) if path.parent.name == "experiments" else name


def read_table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / TABLE, dtype=str, keep_default_na=False)


def plan_targets(folder: Path, config: str) -> str:
    status, output = run_fork(folder, "--dry-run", "--", *SMALL_TARGETS, config=config)
    assert status == 0, output
    return output


def keep_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without intervals and marks of the best."""
    return table.apply(lambda column: column.str.removesuffix(" *").str.split(" ± ").str[0])


def test_one_impossible_fit(small_project: Path):
    before = digest_results(small_project / RESULTS)
    good = read_table(small_project)

    def change(config: Any) -> None:
        config["methods"]["topk-sae"]["lr"] = 1e30

    bad = change_config(small_project / SMALL, change)
    done = run_snakemake(small_project, "--cores", "2", "--", *SMALL_TARGETS, config=bad)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    reason = "lr: expected a rate at which training is stable, got 1e+30"
    assert lines[-1].startswith(f"failed: {FIT}: {reason}")
    assert lines[-1].endswith(f"(log: {LOG})")
    assert [line for line in lines if line.startswith("failed: ")] == [lines[-1]]

    # All other rows stand, and the fit is a row too.
    table = read_table(small_project)
    columns = [name for name in good if name != "seeds"]
    stands = table[table["method"] == "dbksvd"]
    # Its numbers, that is: intervals and what is best need another method.
    before_it = good.loc[good["method"] == "dbksvd", columns]
    pd.testing.assert_frame_equal(keep_means(stands[columns]), keep_means(before_it))
    failed = table[table["method"] == "topk-sae"]
    assert failed["failed"].item().startswith(f"failed: fit_dictionary: {reason}")
    assert failed["seeds"].item() == "0"
    assert failed["variance explained"].item() == ""

    # What was good is there as before, and the fit is tried again; mended, no fit is made again.
    changed = compare_results(before, digest_results(small_project / RESULTS))
    assert {line.split(":")[0] for line in changed} <= {
        *TABLES,
        "synthetic/checkpoints/topk-sae/m32-k4-s0/checkpoint.safetensors",
    }
    assert not list((small_project / RESULTS).rglob(".*"))
    assert "rule fit_dictionary" in plan_targets(small_project, bad)
    planned = plan_targets(small_project, SMALL)
    assert "checkpoint collect_scores:" in planned
    assert "rule fit_dictionary:" not in planned
    assert "rule score_ground_truth:" not in planned
    targets = SMALL_TARGETS[:2]
    done = run_snakemake(small_project, "--cores", "2", "--", *targets, config=SMALL)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(read_table(small_project), good)
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("table: results/small/table.md")  # and columns left out, if any
    assert any(line.startswith("topk-sae  ") for line in lines)


def test_failed_text_and_equal_text(project: Path):
    results = project / "results/tiny"
    before = digest_results(results)
    times = {path: path.stat().st_mtime_ns for path in (results / "text").iterdir()}

    def ask_for(documents: int) -> str:
        return change_config(
            project / CONFIG, lambda config: config["text"].update(min_train_documents=documents)
        )

    done = run_snakemake(project, "--cores", "2", config=ask_for(1_000_000))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("failed: prepare_text: text: expected at least 1000000 train documents")
    assert last.endswith("(log: results/tiny/logs/prepare_text.log)")
    assert compare_results(before, digest_results(results)) == []
    assert {path: path.stat().st_mtime_ns for path in (results / "text").iterdir()} == times
    assert plan(project) == {}
    assert plan(project, ask_for(1_000_000))["prepare_text"] == 1  # is not taken for done

    # Documents are read again, and nothing else runs, since they are the same.
    done = run_snakemake(project, "--cores", "2", config=ask_for(2))
    assert done.returncode == 0, done.stderr
    assert "prepare_text:" in done.stderr
    assert "extract_activations:" not in done.stderr
    assert "fit_dictionary:" not in done.stderr
    manifest = json.loads((results / "text/manifest.json").read_text())
    assert manifest["settings"]["min_train_documents"] == 2
    assert done.stderr.splitlines()[-1] == "figures: results/tiny/figures/"

    done = run_snakemake(project, "--cores", "2", config=ask_for(2))
    assert done.returncode == 0
    last = done.stderr.splitlines()[-1]
    assert last == "nothing to do: results/tiny/table.md is up to date"


def test_extraction_comes_before_the_evals(finished_run: Path):
    """Too little text is found there, in a fraction of the time that evals take to prepare."""
    status, output = run_fork(finished_run, "--dry-run", "--forceall")
    assert status == 0
    blocks = re.split(r"^(?:local)?(?:rule|checkpoint) ", output, flags=re.MULTILINE)
    first = {"prepare_text", "extract_activations"}
    assert {block.split(":")[0] for block in blocks if "    priority: 5\n" in block} == first
