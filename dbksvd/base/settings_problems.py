"""What is wrong with settings, told in one line each: key, what was expected and what came."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from pydantic import ValidationError

from dbksvd.base.settings_errors import extend, join, show, suggest
from dbksvd.base.settings_schema import SchemaWalk

LARGEST = 2**63 - 1  # what NumPy, torch and HDF5 hold in an integer

UNKNOWN, MISSING = "extra_forbidden", ("missing", "union_tag_not_found")


def find_odd_values(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield (place, problem) for what YAML can say but a param or a computation cannot hold.

    That is odd keys, NaN, infinity, and integers beyond 64 bits.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            place = join(where, str(key))
            if isinstance(key, str):
                yield from find_odd_values(item, place)
            else:
                yield place, f"{place}: expected a text key, got {show(key)}"
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from find_odd_values(item, f"{where}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield where, f"{where}: expected a finite number, got {value}"
    elif isinstance(value, int) and abs(value) > LARGEST:
        bound = f"at most {LARGEST}" if value > 0 else f"at least {-LARGEST}"
        yield where, f"{where}: expected {bound}, got {show(value)}"


def list_problems(error: ValidationError, kind: Any, values: Any, where: str) -> list[str]:
    """Return a line for each thing that pydantic found wrong; all missing keys are one line.

    Parameters
    ----------
    error : ValidationError
        What pydantic raised.
    kind : Settings class, or any type that pydantic knows
        What was expected.
    values : mapping
        What came.
    where : str
        Name of the section, for messages; empty for the whole config.
    """
    walk = SchemaWalk(kind)
    odd = dict(find_odd_values(values, where))
    found = [
        (item, find_place(item["loc"], values, where, walk.find_tags(item["loc"])))
        for item in error.errors(include_url=False)
    ]
    found = [
        (item, place)
        for item, place in found
        if not any(place == other or _is_below(place, other) for other in odd)
    ]
    lines, meant = _list_unknown([pair for pair in found if pair[0]["type"] == UNKNOWN], walk)
    missing = [extend(place, _name_tag(item)) for item, place in found if item["type"] in MISSING]
    # A misspelt key makes a missing one too.
    missing = [name for name in dict.fromkeys(missing) if name not in meant]
    if missing:
        keys = "missing key" if len(missing) == 1 else "missing keys"
        lines.append(f"{', '.join(missing)}: {keys}")
    handled = (UNKNOWN, *MISSING)
    rest = [pair for pair in found if pair[0]["type"] not in handled]
    places = list(dict.fromkeys(place for _, place in rest))
    # Of the members of a union, the one that went deepest is the one that was meant.
    for place in places:
        if not any(_is_below(other, place) for other in (*places, *odd)):
            lines.append(_explain([item for item, own in rest if own == place], place))
    return [*odd.values(), *lines]


def _list_unknown(found: Iterable[tuple[Any, str]], walk: SchemaWalk) -> tuple[list[str], set[str]]:
    """Return a line for each unknown key, and the places of the keys that were meant."""
    lines, meant = [], set()
    for item, place in found:
        key, known = str(item["loc"][-1]), sorted(set(walk.list_keys(item["loc"][:-1])))
        close = difflib.get_close_matches(key, known, n=1)
        meant |= {place.removesuffix(join("", key)) + word for word in close}
        hint = suggest(key, known) or (f", expected one of {', '.join(known)}" if known else "")
        lines.append(f"{place}: unknown key{hint}")
    return lines, meant


def _is_below(place: str, other: str) -> bool:
    return place != other and (not other or place.startswith((f"{other}.", f"{other}[")))


def _explain(same: Sequence[Any], place: str) -> str:
    """Return one line for the errors at a place; members of a union have one each."""
    if any(item["type"].startswith(("greater_than", "less_than")) for item in same):
        # a number out of bounds: the words that could stand there too were not meant
        same = [item for item in same if item["type"] != "literal_error"]
    first = same[0]
    if first["type"] in ("value_error", "assertion_error"):
        return _place_message(str(first["ctx"]["error"]), place)
    expected = " or ".join(dict.fromkeys(map(_tell_expectation, same)))
    got = first["ctx"]["tag"] if first["type"] == "union_tag_invalid" else first["input"]
    wants_text = any(item["type"] in ("string_type", "literal_error") for item in same)
    hint = _hint_quotes(got) if wants_text else ""
    return (
        f"{extend(place, _name_tag(first)) or 'config'}: expected {expected}, got {show(got)}{hint}"
    )


def _hint_quotes(got: Any) -> str:
    """Say how to write what YAML reads as something else than text."""
    if isinstance(got, bool):
        return " (YAML reads yes, no, on and off as true and false; in quotes they are text)"
    return " (in quotes it is text)" if isinstance(got, int | float | date) else ""


def _place_message(message: str, place: str) -> str:
    """Put the section before a validator's own message, which begins with a key and a colon."""
    return (
        f"{place}.{message}"
        if place and re.match(r"[\w.\[\]]+: ", message)
        else (f"{place or 'config'}: {message}")
    )


def _name_tag(item: Mapping[str, Any]) -> str:
    """Return the key that tells the members of a union apart, where an error is about it."""
    return str(item.get("ctx", {}).get("discriminator", "")).strip("'")


def find_path(
    location: Sequence[int | str], values: Any, tags: Container[int]
) -> tuple[list[Any], str]:
    """Return the keys and positions that lead to an error, and a last key that is missing.

    Names that pydantic gives to members of a union are left out.

    Parameters
    ----------
    location : sequence of int or str
        As pydantic has it.
    values : mapping
        What was parsed.
    tags : container of int
        Which parts of the location are values that tell a union's members.
    """
    path: list[Any] = []
    part: Any
    for number, part in enumerate(location):
        is_last = number == len(location) - 1
        if number in tags or (is_last and part == "[key]"):  # a wrong name: the place is its own
            continue
        if (isinstance(part, int) and isinstance(values, list) and part < len(values)) or (
            isinstance(values, dict) and part in values
        ):
            path, values = [*path, part], values[part]
        elif isinstance(values, dict) and is_last and (tags or part not in values.values()):
            return path, str(part)
    return path, ""


def find_place(location: Sequence[int | str], values: Any, where: str, tags: Container[int]) -> str:
    """Return the name of the place of an error; arguments as for :func:`find_path`."""
    path, missing = find_path(location, values, tags)
    place = where
    for part in path:
        place = f"{place}[{part}]" if isinstance(values, list) else join(place, str(part))
        values = values[part]
    return extend(place, missing)


def _tell_expectation(item: Mapping[str, Any]) -> str:
    """Return what was expected, in words."""
    context = item.get("ctx", {})
    match item["type"]:
        case "literal_error" | "union_tag_invalid":
            names = context.get("expected") or context["expected_tags"]
            return f"one of {names.replace(' or ', ', ')}"
        case "greater_than_equal":
            return f"at least {_shorten(context['ge'])}"
        case "less_than_equal":
            return f"at most {_shorten(context['le'])}"
        case "greater_than":
            return f"more than {_shorten(context['gt'])}"
        case "less_than":
            return f"less than {_shorten(context['lt'])}"
        case "string_pattern_mismatch":
            return f"text matching {context['pattern']}"
        case "string_too_short":
            return "text that is not empty"
        case "too_short":
            least = context["min_length"]
            return f"at least {least} item{'s' if least > 1 else ''}"
        case "too_long":
            return f"at most {context['max_length']} items"
        case "none_required":
            return "null"
        case kind if kind.endswith("_type") or kind.endswith("_parsing"):
            names = {"int": "integer", "float": "number", "bool": "boolean", "list": "array"}
            word = kind.split("_")[0]
            named = {"model": "object", "dict": "object"} | names
            return named.get(word, word)
        case _:
            return str(item["msg"])


def _shorten(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"
