"""Running the real snakemake on copies of the project."""

import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = "experiments/tiny.yaml"
SMALL = "small.yaml"  # beside this file
# All stages; of figures and tables one each, since importing what draws takes longest.
SMALL_TARGETS = (
    "results/small/table.csv",
    "results/small/curves.csv",
    "results/small/figures/variance_explained.png",
)
SOURCES = (
    "Snakefile",
    "config.yaml",
    "dbksvd",
    "workflow",
    "scripts",
    "experiments",
    "envs",
    "profiles",
)

KERNELS = """
import torch
from dbksvd import DBKSVD
x = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
for nonnegative in (False, True):
    DBKSVD(32, 4, max_iter=1, nonnegative=nonnegative).fit(x)
"""


@cache
def compile_kernels() -> None:
    """Let numba compile what fits use, where this checkout has not done it yet."""
    if not any((ROOT / "dbksvd/ops").rglob("*.nbi")):
        command = [sys.executable, "-c", KERNELS]
        subprocess.run(command, cwd=ROOT, env=make_environment(), check=True)


def copy_project(folder: Path) -> Path:
    """Copy what a run needs, without results, as a fresh clone would have it.

    What numba has compiled here comes along: it would take ten seconds of every fit's first run.
    The tiny experiment makes no feature pages there, which take as long (test_pages_workflow.py).
    """
    compile_kernels()
    folder.mkdir(parents=True)
    ignore = shutil.ignore_patterns("*.pyc", "*.tmp.*")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder)
    with (folder / CONFIG).open("a") as stream:
        stream.write("\npages: null\n")
    return folder


def make_environment(python: str = sys.executable) -> dict[str, str]:
    """Return the environment with this Python's scripts on PATH, as after activating it."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    environment["PATH"] = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    environment.pop("PYTHONPATH", None)
    return environment


def run_snakemake(
    folder: Path,
    *arguments: str,
    config: str = CONFIG,
    timeout: float = 900,
    program: tuple[str, ...] = ("-m", "snakemake"),
    python: str = sys.executable,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the real snakemake of this environment in `folder`; output is text.

    Parameters
    ----------
    folder : Path
        A copy of the project.
    *arguments : str
        After ``--configfile`` and `config`.
    config : str
        Relative to `folder`.
    timeout : float
        In seconds.
    program : tuple of str
        What Python runs.
    python : str
        Which one; its folder comes first on PATH.
    environment : dict, optional
        Variables that differ from those of `make_environment`.
    """
    command = [python, *program, "--configfile", config, *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=make_environment(python) | (environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@cache
def start_forks() -> subprocess.Popen[str]:
    """Start what forks for short runs (dry_runs.py); it ends with this process, by its stdin."""
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name("dry_runs.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_forks(
    folder: Path,
    *runs: Sequence[str],
    environment: dict[str, str] | None = None,
    timeout: float = 600,
) -> list[tuple[int, str]]:
    """Run the real snakemake with some lists of arguments, without its imports; no job may start.

    Parameters
    ----------
    folder : Path
        Where to run.
    *runs : sequence of str
        Arguments of each run.
    environment : dict, optional
        Variables that differ from those of `make_environment`.
    timeout : float
        In seconds, for all of them.

    Returns
    -------
    list of (int, str)
        Exit status and output of each.
    """
    process = start_forks()
    assert process.stdin is not None
    assert process.stdout is not None
    request = {
        "folder": str(folder),
        "runs": runs,
        "environment": make_environment() | (environment or {}),
    }
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    readable, _, _ = select.select([process.stdout], [], [], timeout)
    assert readable, f"expected an answer within {timeout} seconds"
    return [(status, output) for status, output in json.loads(process.stdout.readline())]


def run_fork(
    folder: Path,
    *arguments: str,
    config: str = CONFIG,
    environment: dict[str, str] | None = None,
) -> tuple[int, str]:
    """Return exit status and output of a run that ends before any job starts."""
    run = ["--configfile", config, *arguments]
    return run_forks(folder, run, environment=environment)[0]


def plan(folder: Path, config: str = CONFIG) -> dict[str, int]:
    """Return what a run would do now, as {rule: jobs}, without the target rule."""
    status, output = run_fork(folder, "--dry-run", config=config)
    assert status == 0, output
    if "Nothing to be done" in output:
        return {}
    rows = re.findall(r"^(\w+)\s+(\d+)$", output.split("Job stats:")[1], flags=re.MULTILINE)
    return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}
