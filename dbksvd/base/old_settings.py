"""Sections of the config as typed settings."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

Settings = TypeVar("Settings")


def build_settings(kind: type[Settings], values: Mapping[str, Any], section: str) -> Settings:
    """Return the settings dataclass `kind` filled with `values`.

    Parameters
    ----------
    kind : dataclass
        Its fields are the known keys; those without default are required.
    values : mapping
        One section of the config.
    section : str
        Name of the section, for messages.

    Raises
    ------
    ValueError
        If a key is unknown or missing, or the section is not a mapping.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{section}: expected a mapping, got {values!r}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
            raise ValueError(f"{section}.{key}: unknown key, {hint}")
    for name, field in known.items():
        required = field.default is MISSING and field.default_factory is MISSING
        if required and name not in values:
            raise ValueError(f"{section}.{name}: missing key")
    return kind(**values)


def check_at_least(minimum: float, section: str, **values: float | None) -> None:
    """Raise ValueError for the first value that is a number below `minimum` (None passes)."""
    for name, value in values.items():
        if value is not None and not value >= minimum:
            raise ValueError(f"{section}.{name}: expected at least {minimum}, got {value!r}")
