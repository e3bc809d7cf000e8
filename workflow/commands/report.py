"""The tables of a finished run, and Snakemake's HTML report where results are newer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from workflow.commands.loading import SNAKEFILE, load_experiment

TABLES = ("table.md", "budgets.md")


def report(configs: Sequence[Path], *, as_json: bool = False, with_tables: bool = True) -> None:
    """Print where everything is, after the tables unless they have just been shown.

    Raises
    ------
    FileNotFoundError
        If there is no finished run.
    SystemExit
        If Snakemake cannot make its report; what it said is on stderr.
    """
    folder = Path(load_experiment(configs).folder)
    if missing := [name for name in ("table.csv", *TABLES) if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder / missing[0]}: expected the table of a finished run (dbksvd run), found none"
        )
    make_report(configs, folder)
    places = list_places(folder)
    if as_json:
        print(json.dumps({name: str(path) for name, path in places.items()}))
        return
    for name in TABLES if with_tables else ():
        print((folder / name).read_text())
    width = max(map(len, places))
    for name, path in places.items():
        print(f"{name:<{width}}  {path}")


def list_places(folder: Path) -> dict[str, Path]:
    """Return what a run leaves for people, by name."""
    places = {
        "figures": folder / "figures",
        "pages": folder / "site" / "index.html",
        "table": folder / "table.csv",
        "differences": folder / "differences.md",
        "scores": folder / "scores.csv",
        "report": folder / "report.html",
    }
    return {name: path for name, path in places.items() if path.exists()}


def make_report(configs: Sequence[Path], folder: Path) -> None:
    """Make ``report.html`` if a table or a figure is newer."""
    path = folder / "report.html"
    results = [*folder.glob("*.csv"), *folder.glob("figures/*")]
    if path.exists() and all(file.stat().st_mtime <= path.stat().st_mtime for file in results):
        return
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE)]
    command += ["--report", str(path), "--configfile", *map(str, configs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        sys.exit(f"error: {path}: snakemake --report ended with {done.returncode}")
