"""Tables of entries: a name, and the module and attribute that hold what the name stands for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def find_entry(table: Mapping[str, str], name: str, where: str) -> Any:
    """Return the entry called `name`; only its own module is imported.

    Parameters
    ----------
    table : mapping of str to str
        Names to ``module:ATTRIBUTE``.
    name : str
        What is looked for.
    where : str
        Key of the config that says `name`, for the message.

    Raises
    ------
    ValueError
        If there is no such entry; the message lists those there are.
    """
    if name not in table:
        raise ValueError(f"{where}: expected one of {', '.join(sorted(table))}, got {name!r}")
    module, attribute = table[name].split(":")
    return getattr(import_module(module), attribute)


def find_source(table: Mapping[str, str], name: str) -> str:
    """Return the file, relative to the project, of the module that holds an entry."""
    return table[name].split(":")[0].replace(".", "/") + ".py"
