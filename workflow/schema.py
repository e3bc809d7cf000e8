"""A config against the schema: every violation in one line that names the key."""

from __future__ import annotations

import difflib
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

LONGEST = 200  # characters of a value in a message
SCHEMA = Path(__file__).parent / "schemas" / "config.schema.yaml"


class ConfigError(Exception):
    """A setting that cannot be used; the message names the key, what was expected and what came."""


def check_schema(config: dict[str, Any]) -> None:
    """Check a config against the schema.

    Raises
    ------
    ConfigError
        For the first thing that is wrong, in one line.
    """
    _check_values(config, "")
    error = best_match(_make_validator().iter_errors(config))
    if error is not None:
        raise ConfigError(_explain(error))


@cache
def _make_validator() -> Draft202012Validator:
    return Draft202012Validator(yaml.safe_load(SCHEMA.read_text()))


def _check_values(value: Any, where: str) -> None:
    """Refuse what YAML can say but JSON, and so a param, cannot: odd keys, NaN and infinity."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{_join(where, str(key))}: expected a text key, got {key!r}")
            _check_values(item, _join(where, key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            _check_values(item, f"{where}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: expected a finite number, got {value}")


def _explain(error: ValidationError) -> str:
    where = _format_path(error.absolute_path)
    value, rule = error.instance, error.validator_value
    match error.validator:
        case "additionalProperties":
            known = error.schema.get("properties", {})
            key = next(key for key in value if key not in known)
            hint = suggest(key, known) or f", expected one of {', '.join(sorted(known))}"
            return f"{_join(where, key)}: unknown key{hint}"
        case "required":
            key = next(key for key in rule if key not in value)
            return f"{_join(where, key)}: missing key"
        case "type":
            kind = " or ".join(rule) if isinstance(rule, list) else rule
            return f"{where}: expected {kind}, got {_show(value)}"
        case "enum":
            return f"{where}: expected one of {', '.join(map(repr, rule))}, got {_show(value)}"
        case "minimum":
            return f"{where}: expected at least {rule}, got {_show(value)}"
        case "maximum":
            return f"{where}: expected at most {rule}, got {_show(value)}"
        case "exclusiveMinimum":
            return f"{where}: expected more than {rule}, got {_show(value)}"
        case "exclusiveMaximum":
            return f"{where}: expected less than {rule}, got {_show(value)}"
        case "pattern":
            return f"{where}: expected text matching {rule}, got {_show(value)}"
        case "oneOf" if "required" not in rule[0]:
            return (
                f"{where}: expected a positive whole number or a list of them, got {_show(value)}"
            )
        case "oneOf":
            names = " or ".join(option["required"][0] for option in rule)
            return f"{where}: expected exactly one of the keys {names}, got {_show(sorted(value))}"
        case "uniqueItems":
            return f"{where}: expected no repeats, got {_show(value)}"
        case "minProperties":
            return f"{where}: expected at least {rule} entry, got none"
        case "minItems":
            return f"{where}: expected at least {rule} item, got {_show(value)}"
        case _:
            return f"{where}: {_shorten(error.message)}"


def _format_path(path: Any) -> str:
    text = ""
    for part in path:
        text = f"{text}[{part}]" if isinstance(part, int) else _join(text, part)
    return text or "config"


def _join(where: str, key: str) -> str:
    shown = key if re.fullmatch(r"[\w-]+", key) else _show(key)
    return shown if where in ("", "config") else f"{where}.{shown}"


def _show(value: Any) -> str:
    return _shorten(repr(value))


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def suggest(word: str, known: Any) -> str:
    """Return ", did you mean …?" with the known word nearest to `word`, or nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
