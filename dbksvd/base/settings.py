"""Settings: each is declared once, in a pydantic model beside the code that it configures.

A model says name, type, bounds, default, unit and meaning of every key. The check of a config, its
JSON schema, the reference page, the scripts and the cost estimates read them from there. Modules
that declare settings import neither torch nor any other heavy package.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, overload

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dbksvd.base.settings_schema import SchemaWalk

LONGEST = 200  # characters of a value in a message


class Settings(BaseModel):
    """A section of a config: unknown keys, wrong types and NaN are refused; it never changes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    def dump(self) -> dict[str, Any]:
        """Return the section with all defaults, as JSON can hold it."""
        return self.model_dump(mode="json")


Item = TypeVar("Item")


def refuse_repeats(values: list[Item]) -> list[Item]:
    """Return a list whose items all differ; a ValueError for another one."""
    if any(item in values[:position] for position, item in enumerate(values)):
        raise ValueError(f"expected no repeats, got {show(values)}")
    return values


Unique = (AfterValidator(refuse_repeats), Field(json_schema_extra={"uniqueItems": True}))
Count = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Text], Field(min_length=1), *Unique]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
DeviceName = Literal["auto", "cpu", "cuda"]

Parsed = TypeVar("Parsed")


class SettingsError(ValueError):
    """A setting that cannot be used; the message names the key, what was expected and what came."""


@overload
def parse(kind: type[Parsed], values: Any, where: str = ...) -> Parsed: ...
@overload
def parse(kind: Any, values: Any, where: str = ...) -> Any: ...
def parse(kind: Any, values: Any, where: str = "") -> Any:
    """Return the settings of `kind` that `values` say.

    Parameters
    ----------
    kind : Settings class, or any type that pydantic knows
        What is expected; settings that are parsed already are returned as they are.
    values : mapping
        A section of a config, as YAML or JSON gives it.
    where : str
        Name of the section, for messages; empty for the whole config.

    Raises
    ------
    SettingsError
        For all keys that are missing, or else for the first thing that is wrong, in one line.
    """
    if isinstance(kind, type) and isinstance(values, kind):
        return values
    check_values(values, where)
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise SettingsError(explain(error, kind, values, where)) from None


def check_values(value: Any, where: str) -> None:
    """Refuse what YAML can say but JSON, and so a param, cannot: odd keys, NaN and infinity.

    Raises
    ------
    SettingsError
        For the first such value, in one line.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise SettingsError(f"{join(where, str(key))}: expected a text key, got {key!r}")
            check_values(item, join(where, key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            check_values(item, f"{where}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{where}: expected a finite number, got {value}")


def explain(error: ValidationError, kind: Any, values: Any, where: str) -> str:
    """Return one line for the errors that pydantic found.

    Parameters
    ----------
    error : ValidationError
        What pydantic raised.
    kind, values, where
        As in :func:`parse`.
    """
    details, walk = error.errors(include_url=False), SchemaWalk(kind)

    def find_place(item: Mapping[str, Any]) -> str:
        return _find_place(item["loc"], values, where, walk.find_tags(item["loc"]))

    # First: a misspelt key makes a missing one too.
    unknown = next((item for item in details if item["type"] == "extra_forbidden"), None)
    if unknown is not None:
        key, known = str(unknown["loc"][-1]), sorted(set(walk.list_keys(unknown["loc"][:-1])))
        hint = suggest(key, known) or (f", expected one of {', '.join(known)}" if known else "")
        return f"{find_place(unknown)}: unknown key{hint}"
    missing = [
        join(find_place(item), _name_tag(item))
        for item in details
        if item["type"] in ("missing", "union_tag_not_found")
    ]
    if missing:
        names = ", ".join(dict.fromkeys(missing))
        return f"{names}: missing key" if len(missing) == 1 else f"{names}: missing keys"
    # Of the members of a union, the one that went deepest is the one that was meant.
    places = [find_place(item) for item in details]
    place = max((name for name in places if name.startswith(places[0])), key=len)
    same = [item for item, name in zip(details, places, strict=True) if name == place]
    if same[0]["type"] in ("value_error", "assertion_error"):
        return _place_message(str(same[0]["ctx"]["error"]), place)
    if any(item["type"].startswith(("greater_than", "less_than")) for item in same):
        # a number out of bounds: the words that could stand there too were not meant
        same = [item for item in same if item["type"] != "literal_error"]
    expected = " or ".join(dict.fromkeys(map(_tell_expectation, same)))
    got = same[0]["ctx"]["tag"] if same[0]["type"] == "union_tag_invalid" else same[0]["input"]
    return f"{join(place, _name_tag(same[0])) or 'config'}: expected {expected}, got {show(got)}"


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


def _find_place(
    location: Sequence[int | str], values: Any, where: str, tags: Container[int]
) -> str:
    """Return where an error is, without the names that pydantic gives to members of a union."""
    place = where
    for number, part in enumerate(location):
        is_last = number == len(location) - 1
        if number in tags:
            continue
        if isinstance(part, int) and isinstance(values, list) and part < len(values):
            place, values = f"{place}[{part}]", values[part]
        elif isinstance(values, dict) and part in values:
            place, values = join(place, str(part)), values[part]
        elif isinstance(values, dict) and is_last and (tags or part not in values.values()):
            place = join(place, str(part))  # a missing key
    return place


def _tell_expectation(item: Mapping[str, Any]) -> str:
    """Return what was expected, in words."""
    context = item.get("ctx", {})
    match item["type"]:
        case "literal_error" | "union_tag_invalid":
            names = context.get("expected") or context["expected_tags"]
            return f"one of {names.replace(' or ', ', ')}"
        case "greater_than_equal":
            return f"at least {context['ge']:g}"
        case "less_than_equal":
            return f"at most {context['le']:g}"
        case "greater_than":
            return f"more than {context['gt']:g}"
        case "less_than":
            return f"less than {context['lt']:g}"
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


def join(where: str, key: str) -> str:
    """Return the name of a key below `where`; odd names are quoted."""
    if not key:
        return where
    shown = key if re.fullmatch(r"[\w-]+", key) else show(key)
    return f"{where}.{shown}" if where else shown


def show(value: Any) -> str:
    """Return a value as a message shows it: quoted, not too long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean …?" with the known word nearest to `word`, or nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
