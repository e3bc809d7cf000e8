"""Remove the results of an experiment."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from workflow.config_files import read_config_file
from workflow.layers import lay_over

MEGABYTE = 1e6


def find_results(configs: Sequence[Path]) -> Path:
    """Return the folder of results that a config names, which need not pass the whole check.

    Raises
    ------
    ValueError
        If the config names no experiment, or its folder is a link.
    FileNotFoundError
        If there are no results.
    """
    config: dict = {}
    for path in configs:
        config = lay_over(config, read_config_file(path))
    name = config.get("experiment")
    if not isinstance(name, str) or not name or set(name) & set("/\\\0") or name.startswith("."):
        raise ValueError(f"{configs[-1]}: experiment: expected the name of a folder, got {name!r}")
    folder = Path("results") / name
    if folder.is_symlink():
        raise ValueError(f"{folder}: expected a folder, got a link, which is not followed")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected results to remove, found none")
    return folder


def measure(folder: Path) -> str:
    """Return how much a folder holds, such as "120 files, 35 MB"."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    return f"{len(files)} files, {size / MEGABYTE:.0f} MB"


def remove_results(folder: Path) -> None:
    """Remove a folder of results."""
    shutil.rmtree(folder)
