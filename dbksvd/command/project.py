"""Where the workflow lies: beside the package in a clone, inside it where it was installed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

INSTALLED = "_project"  # the folder inside the package, which setup.py fills
EXPERIMENTS = "experiments"  # the folder of the project whose files are found from anywhere


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


def find_carried(path: Path) -> Path:
    """Return an experiment of the project for a relative path such as ``experiments/tiny.yaml``.

    A path that the project has no experiment for is returned as it is. Its own ``config.yaml`` is
    none: a user who names one means that of the current folder.
    """
    if path.parts[:1] != (EXPERIMENTS,):
        return path
    carried = find_project() / path
    return carried if carried.is_file() else path


def load_workflow(name: str) -> ModuleType:
    """Import ``workflow.commands.<name>``, which is no package of its own where it is installed.

    Raises
    ------
    FileNotFoundError
        As :func:`find_project`.
    """
    root = str(find_project())
    if root not in sys.path:
        sys.path.insert(0, root)
    return import_module(f"workflow.commands.{name}")


@contextmanager
def tell_missing() -> Iterator[None]:
    """Say in a line which package a command needs beside the engine's own.

    Raises
    ------
    ValueError
        If a package of an extra is not installed, or one that is does not fit the others.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("dbksvd", "workflow"):
            raise
        if not package:  # transformers, where a package that it looks for fails as it is imported
            told = " ".join(str(error).split())
            raise ValueError(
                f"packages: expected ones that fit each other, got: {told} (a torchvision of "
                "another build of torch? pip uninstall torchvision)"
            ) from error
        raise ValueError(
            f"{package}: expected what this command needs (pip install 'dbksvd[all]'), found none"
        ) from error


@contextmanager
def tell_memory() -> Iterator[None]:
    """Say in a line that an array is larger than memory, of the machine or of a GPU.

    Raises
    ------
    ValueError
        In place of the error of NumPy or torch.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = " ".join(str(error).split())
        is_full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not is_full and "allocate memory" not in told:  # of torch on a CPU
            raise
        size = re.search(r"allocate (\d+) bytes", told)
        got = f"one of {int(size[1]) / 1e9:,.0f} GB" if size else told or "one too large"
        raise ValueError(
            f"memory: expected arrays that fit (fewer atoms or rows), got {got}"
        ) from error
