"""Running the real snakemake on copies of the project."""

import os
import re
import shutil
import subprocess
import sys
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


def copy_project(folder: Path) -> Path:
    """Copy what a run needs, without results, as a fresh clone would have it.

    What numba has compiled here comes along: it would take ten seconds of every fit's first run.
    """
    folder.mkdir(parents=True)
    ignore = shutil.ignore_patterns("*.pyc", "*.tmp.*")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder)
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
) -> subprocess.CompletedProcess[str]:
    """Run the real snakemake of this environment in `folder`; output is text."""
    command = [python, *program, "--configfile", config, *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=make_environment(python),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def plan(folder: Path, config: str = CONFIG) -> dict[str, int]:
    """Return what a run would do now, as {rule: jobs}, without the target rule."""
    done = run_snakemake(folder, "--dry-run", config=config)
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr
    if "Nothing to be done" in output:
        return {}
    rows = re.findall(r"^(\w+)\s+(\d+)$", output.split("Job stats:")[1], flags=re.MULTILINE)
    return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}
