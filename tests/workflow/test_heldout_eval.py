"""An eval of the run's own held-out documents is prepared after the text, others before it."""

import json
from pathlib import Path

import yaml
from running import CONFIG, copy_project, run_fork, run_snakemake

from dbksvd.base.files import read_json


def read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_held_out_documents_are_an_input_of_the_eval_that_reads_them(tmp_path: Path):
    folder = copy_project(tmp_path / "project")
    config = yaml.safe_load((folder / CONFIG).read_text())
    config["experiment"] = "own"
    config["evaluation"]["evals"]["core"]["datasets"] = "heldout"
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    prepared = "results/own/layer4/prepared"
    core, probes = (
        f"{prepared}/{name}/manifest.json" for name in ("core", "sparse_probing_sae_probes")
    )
    status, output = run_fork(folder, "--dry-run", probes, config="own.yaml")
    assert status == 0, output
    assert "prepare_text" not in output
    done = run_snakemake(folder, "--cores", "1", core, config="own.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_json(folder / core)["settings"]["data"] == "heldout"
    status, output = run_fork(folder, "--dry-run", core, config="own.yaml")
    assert "Nothing to be done" in output
    records = map(json.loads, read_lines(folder / "results/own/text/documents.jsonl"))
    assert sum(record["split"] == "heldout" for record in records) >= 16
    config["text"]["seed"] = config["text"].get("seed", 0) + 1
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    status, output = run_fork(folder, "--dry-run", core, config="own.yaml")
    assert "prepare_text" in output  # what follows is known when the text is there
    before = read_json(folder / core)["sha256"]
    done = run_snakemake(folder, "--cores", "1", core, config="own.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_json(folder / core)["sha256"] != before
