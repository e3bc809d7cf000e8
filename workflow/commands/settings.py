"""What a key of a config means: the page of settings, for a terminal."""

from __future__ import annotations

import difflib
import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from workflow.reference import TOP, open_page


@dataclass(frozen=True)
class Told:
    """A key from the top of a config on, and for which kind of section it is."""

    key: str
    of: str
    type: str
    default: str
    meaning: str


def tell_settings(wanted: Sequence[str], *, as_json: bool = False) -> None:
    """Print type, default and meaning of keys; all of them where none is named.

    Raises
    ------
    ValueError
        If there is no such key.
    """
    known = list_settings()
    found = known if not wanted else [one for key in wanted for one in find_settings(known, key)]
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        print(f"{one.key}{f'  ({one.of})' * bool(one.of)}\n    {one.type}; {one.default}")
        if one.meaning:
            print(f"    {one.meaning}")


def list_settings() -> list[Told]:
    """Return every key that a config may have."""
    told = []
    for title, _, settings in open_page().list_sections():
        path, _, of = title.partition(" (")
        start = "" if path == TOP else f"{path}."
        for key, kind, default, meaning in settings:
            default = f"default {default}" if default else "needed"
            words = (html.unescape(text).replace("`", "") for text in (kind, default, meaning))
            told.append(Told(start + key, of.removesuffix(")"), *words))
    return told


def find_settings(known: Sequence[Told], wanted: str) -> list[Told]:
    """Return a key and all below it: from the top on (``text.seed``), or its last part (``k``).

    Raises
    ------
    ValueError
        If there is none.
    """
    found = [one for one in known if f"{one.key}.".startswith(f"{wanted}.")]
    found = found or [one for one in known if one.key.endswith(f".{wanted}")]
    if not found:
        names = {name for one in known for name in (one.key, one.key.rsplit(".", 1)[-1])}
        close = difflib.get_close_matches(wanted, sorted(names), n=3)
        hint = f", did you mean {' or '.join(close)}?" if close else " (dbksvd settings lists all)"
        raise ValueError(f"{wanted}: expected a key of a config{hint}")
    return found
