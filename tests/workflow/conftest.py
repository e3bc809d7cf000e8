"""One real run of the tiny experiment, shared by all tests of the workflow."""

import shutil
from pathlib import Path

import pytest
from running import copy_project, run_snakemake


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder (its name has a space) in which the tiny experiment has run to its end."""
    folder = copy_project(tmp_path_factory.mktemp("run") / "a project")
    done = run_snakemake(folder, "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def project(finished_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "copy of a project"))
