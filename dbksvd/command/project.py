"""Where the workflow lies: beside the package in a clone, inside it where it was installed."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

INSTALLED = "_project"  # the folder inside the package, which setup.py fills


def find_project() -> Path:
    """Return the folder that holds ``workflow/``, ``scripts/``, ``profiles/`` and ``config.yaml``.

    Raises
    ------
    FileNotFoundError
        If the package was copied without them.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent, package / INSTALLED):
        if (folder / "workflow" / "Snakefile").is_file():
            return folder
    raise FileNotFoundError(
        f"{package / INSTALLED}: expected the workflow, found none; install dbksvd anew"
    )


def load_workflow(name: str) -> ModuleType:
    """Import ``workflow.commands.<name>``, which is no package of its own where it is installed.

    Raises
    ------
    FileNotFoundError
        As :func:`find_project`.
    ValueError
        If what the workflow needs beside the engine is not installed.
    """
    root = str(find_project())
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        return import_module(f"workflow.commands.{name}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("dbksvd", "workflow"):
            raise
        raise ValueError(
            f"{package}: expected what the workflow needs (pip install 'dbksvd[all]'), found none"
        ) from error
