"""One real run of the tiny experiment and one of the small one, shared by all tests and workers."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulated_slurm import start_cluster, stop_cluster
from filelock import FileLock
from real_runs import finds_real_run
from running import SMALL, SMALL_TARGETS, copy_project, run_snakemake


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that run real jobs; `make test-fast` leaves them out."""
    if isinstance(item, pytest.Function) and finds_real_run(item):
        item.add_marker("runs_snakemake")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that run real jobs: they take longest, and none should be the last."""
    long = {item.path for item in items if item.get_closest_marker("runs_snakemake")}
    items.sort(key=lambda item: item.path not in long)


def share(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` fills, once for all workers of pytest-xdist."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name} is done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of another worker's failure
            make(folder)
            done.touch()
    return folder


def copy_run(folder: Path, copy: Path) -> Path:
    """Copy a shared run, in which another worker may be planning: that writes logs only."""
    return Path(shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("log", "tmp.*")))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder (its name has a space) in which the tiny experiment has run to its end; only read."""

    def make(folder: Path) -> None:
        done = run_snakemake(copy_project(folder), "--cores", "2")
        assert done.returncode == 0, done.stdout + done.stderr

    return share(tmp_path_factory, "a project", make)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the targets of the small experiment were made; only read."""

    def make(folder: Path) -> None:
        copy_project(folder)
        shutil.copy(Path(__file__).with_name(SMALL), folder)
        done = run_snakemake(folder, "--cores", "2", "--", *SMALL_TARGETS, config=SMALL)
        assert done.returncode == 0, done.stdout + done.stderr

    return share(tmp_path_factory, "small", make)


@pytest.fixture
def small_project(small_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the small run that a test may change."""
    return copy_run(small_run, tmp_path / "small copy")


@pytest.fixture
def project(finished_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run that a test may change."""
    return copy_run(finished_run, tmp_path / "copy of a project")


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder with the logs of a real Slurm of two emulated nodes, each with 4 CPUs and 4 GPUs."""
    folder = tmp_path_factory.mktemp("slurm")
    reason = start_cluster(folder)
    if reason is not None:
        pytest.skip(f"no Slurm: {reason}")
    yield folder
    stop_cluster(folder)
