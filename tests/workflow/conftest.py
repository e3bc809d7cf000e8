"""One real run of the tiny experiment, shared by all tests of the workflow."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated_slurm import start_cluster, stop_cluster
from running import SMALL, SMALL_TARGETS, copy_project, run_snakemake


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder (its name has a space) in which the tiny experiment has run to its end."""
    folder = copy_project(tmp_path_factory.mktemp("run") / "a project")
    done = run_snakemake(folder, "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the targets of the small experiment were made."""
    folder = copy_project(tmp_path_factory.mktemp("small") / "small")
    shutil.copy(Path(__file__).with_name(SMALL), folder)
    done = run_snakemake(folder, "--cores", "2", "--", *SMALL_TARGETS, config=SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def small_project(small_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the small run that a test may change."""
    return Path(shutil.copytree(small_run, tmp_path / "small copy"))


@pytest.fixture
def project(finished_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "copy of a project"))


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder with the logs of a real Slurm of two emulated nodes, each with 4 CPUs and 4 GPUs."""
    folder = tmp_path_factory.mktemp("slurm")
    reason = start_cluster(folder)
    if reason is not None:
        pytest.skip(f"no Slurm: {reason}")
    yield folder
    stop_cluster(folder)
