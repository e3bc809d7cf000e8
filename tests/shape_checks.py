"""Annotations of dbksvd.base.shapes, checked at run time: sizes of one name in a call must be equal."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxtyping import install_import_hook

ROOT = Path(__file__).parents[1]
# Refuses wrong shapes itself, with a message that tests read.
REFUSING = "Dictionary.__init__"


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with checks of its annotated shapes, and of no other types.

    Other wrong types are for the functions to refuse, with a message of their own.
    """
    from beartype import beartype

    hints = function.__annotations__.items()
    function.__annotations__ = {
        name: hint
        for name, hint in hints
        if "jaxtyping." in str(hint) and function.__qualname__ != REFUSING
    }
    return beartype(function)


def install() -> None:
    """Check the modules of the package that use the shapes and are imported from now on."""
    if find_spec("beartype") is None:  # `make gpu` takes the Python at hand
        return
    paths = [
        path
        for path in sorted((ROOT / "dbksvd").rglob("*.py"))
        if "from dbksvd.base.shapes import" in path.read_text()
    ]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    install_import_hook(names, "shape_checks.check")
