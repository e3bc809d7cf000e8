"""Settings: each is declared once, in a pydantic model beside the code that it configures.

A model says name, type, bounds, default, unit and meaning of every key. The check of a config, its
JSON schema, the reference page, the scripts and the cost estimates read them from there. Modules
that declare settings import neither torch nor any other heavy package.
"""

from __future__ import annotations

import copy
import re
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar, overload

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dbksvd.base.settings_errors import SettingsError, join, show, suggest
from dbksvd.base.settings_problems import LARGEST, find_odd_values, find_path, list_problems
from dbksvd.base.settings_schema import SchemaWalk

# JSON's and YAML 1.2's numbers that YAML 1.1 reads as text.
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")

__all__ = [
    "LARGEST_SEED",
    "Count",
    "DeviceName",
    "Fraction",
    "Names",
    "NonNegative",
    "NonNegativeInt",
    "Positive",
    "Seed",
    "Settings",
    "SettingsError",
    "Sha256",
    "Text",
    "Unique",
    "join",
    "parse",
    "refuse_repeats",
    "show",
    "suggest",
]


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
LARGEST_SEED = 2**32 - 1  # NumPy's global generator takes no larger one
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Text], Field(min_length=1), *Unique]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
DeviceName = Literal["auto", "cpu", "cuda"]

Parsed = TypeVar("Parsed")


@overload
def parse(kind: type[Parsed], values: Any, where: str = ...) -> Parsed: ...
@overload
def parse(kind: Any, values: Any, where: str = ...) -> Any: ...
def parse(kind: Any, values: Any, where: str = "") -> Any:
    """Return the settings of `kind` that `values` say.

    Whole numbers may be written as 100.0 or 2.0e+5, and numbers as 2e5, which YAML 1.1 reads as
    text.

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
        For everything that is wrong, in one line each.
    """
    if isinstance(kind, type) and isinstance(values, kind):
        return values
    adapter, values = TypeAdapter(kind), _drop_signs_of_zeros(values)
    try:
        found = adapter.validate_python(values)
    except ValidationError as error:
        mended = _mend_numbers(error, kind, values)
        if mended is not None:
            return parse(kind, mended, where)
        raise SettingsError(*list_problems(error, kind, values, where)) from None
    odd = [problem for _, problem in find_odd_values(values, where)]
    if odd:
        raise SettingsError(*odd)
    return found


def _drop_signs_of_zeros(value: Any) -> Any:
    """Return a value with 0 for −0, which is another text in a param but no other number."""
    if isinstance(value, dict):
        return {key: _drop_signs_of_zeros(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_drop_signs_of_zeros(item) for item in value]
    return 0.0 if isinstance(value, float) and value == 0 else value


def _mend_numbers(error: ValidationError, kind: Any, values: Any) -> Any:
    """Return a copy of `values` in which numbers of another type are as expected, or None."""
    found = [
        (item["loc"], number)
        for item in error.errors(include_url=False)
        if (number := _read_number(item["input"], item["type"])) is not None
    ]
    if not found:
        return None
    walk, mended = SchemaWalk(kind), copy.deepcopy(values)
    for location, number in found:
        path, _ = find_path(location, values, walk.find_tags(location))
        if not path:  # it is no part of a mapping: nothing to put it in
            return None
        holder = mended
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = number
    return mended


def _read_number(value: Any, problem: str) -> int | float | None:
    """Return the number that was meant, where pydantic's `problem` is its type only."""
    if isinstance(value, str) and not EXPONENT.fullmatch(value):
        return None
    if problem not in ("int_type", "float_type") or not isinstance(value, str | float):
        return None
    number = float(value)
    if not abs(number) <= LARGEST:  # NaN too
        return None
    if problem == "float_type":
        return number
    exact = Decimal(value)
    return int(exact) if exact == int(exact) else None
