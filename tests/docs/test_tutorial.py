"""The tutorial as a new user follows it: every command as written, to the page of an atom."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from doc_blocks import DOCS, ROOT, list_blocks

TUTORIAL = list_blocks(DOCS / "tutorial.md")
# The environment is that of the tests.
INSTALL = {"make env", "source .venv/bin/activate"}


def run_shell(folder: Path, script: str) -> str:
    """Run lines of shell with `dbksvd` on the path; return what they print."""
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env=make_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_environment(folder: Path) -> dict[str, str]:
    programs = f"{folder.parent / 'bin'}{os.pathsep}{Path(sys.executable).parent}"
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder in which the tutorial was followed, and what its commands printed."""
    home = tmp_path_factory.mktemp("user") / "home"
    home.mkdir()
    command = home.parent / "bin" / "dbksvd"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dbksvd.command.main "$@"\n')
    command.chmod(0o755)
    here, printed = home, {}
    for block in TUTORIAL:
        if block.language == "yaml":
            (here / "small.yaml").write_text(block.text)
            continue
        for line in block.text.splitlines():
            if line in INSTALL:
                continue
            if line.startswith("cd "):
                here = here / line.removeprefix("cd ")
                continue
            if line.startswith("dbksvd status"):
                config = (here / "small.yaml").read_text()
                (here / "small.yaml").write_text(config.replace("k: [8]", "k: [8, 16]"))
            printed[line.split(" ")[1]] = run_shell(here, line)
    return here, printed


@pytest.mark.slow
def test_it_ends_at_a_feature_page(home: tuple[Path, dict[str, str]]):
    folder, printed = home
    site = folder / "results/first/site"
    assert (site / "index.html").is_file()
    assert (site / "explain.html").is_file()
    table = pd.read_csv(folder / "results/first/table.csv")
    assert set(table["method"]) == {"dbksvd", "topk-sae"}
    assert "dbksvd" in printed["report"]


@pytest.mark.slow
def test_a_change_asks_for_two_more_fits(home: tuple[Path, dict[str, str]]):
    status = home[1]["status"]
    assert "fit_dictionary" in status
    assert "extract_activations" not in status


@pytest.mark.slow
@pytest.mark.parametrize("page", ["howto/score.md", "pages.md"])
def test_python_of_pages_runs_on_its_results(page: str, home: tuple[Path, dict[str, str]]):
    code = "\n".join(block.text for block in list_blocks(DOCS / page) if block.language == "python")
    code = code.replace("minilm", "first").replace("m512-k16-s0", "m256-k8-s0")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=home[0],
        env=make_environment(home[0]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
