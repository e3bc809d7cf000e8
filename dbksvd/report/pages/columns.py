"""Lists of like records as columns, which take half the room once compressed.

``static/site.js`` has the inverse, ``unfold``. A folded column is a list that begins with its kind:

=====  =========================================  ==================================================
kind   rest                                       stands for
=====  =========================================  ==================================================
``c``  n, value                                   the value n times
``i``  lowest, digits, …                          integers: base-64 digits above the lowest, one
                                                  string for each place, most significant first
``f``  column, column                             numbers: mantissas and exponents to base 10
``s``  texts, column                              texts by their numbers
``d``  {key: column}                              objects of the same keys
``t``  [column, …]                                short lists of one length
``l``  column, column                             lists: their lengths, then all entries in a row
``j``  values                                     values as they are
=====  =========================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MOST_DIGITS = 15  # an integer of so many is exact in JavaScript
SHORT = 8  # entries of a list that are columns of their own


def fold(values: Sequence[Any]) -> list[Any]:
    """Return values as a column.

    Parameters
    ----------
    values : sequence
        JSON-able; numbers are finite. What is not of one kind is kept as it is.

    Returns
    -------
    list
        JSON-able.
    """
    kinds = {type(value) for value in values}
    if not values or len(kinds - {int, float}) > 1:
        return ["j", list(values)]
    if kinds == {int}:
        return _fold_integers(values)
    if kinds <= {int, float}:
        return _fold_numbers(values)
    if kinds == {str}:
        return _fold_texts(values)
    if kinds == {dict}:
        keys = list(values[0])
        if keys and all(list(value) == keys for value in values):
            return ["d", {key: fold([value[key] for value in values]) for key in keys}]
    if kinds == {list}:
        return _fold_lists(values)
    return ["j", list(values)]


def _fold_integers(values: Sequence[int]) -> list[Any]:
    low, high = min(values), max(values)
    if low == high:
        return ["c", len(values), low]
    if high - low >= 2**53:  # more than JavaScript holds exactly
        return ["j", list(values)]
    places = -(-(high - low).bit_length() // 6)
    shifts = [6 * place for place in reversed(range(places))]
    return ["i", low, *("".join(DIGITS[(v - low) >> s & 63] for v in values) for s in shifts)]


def _fold_numbers(values: Sequence[float]) -> list[Any]:
    """Write each number as a mantissa of as many digits as the longest needs, and an exponent."""
    shown = [f"{value:.{MOST_DIGITS - 1}e}" for value in values]
    if any(float(text) != value for text, value in zip(shown, values, strict=True)):
        return ["j", list(values)]
    parts = [text.split("e") for text in shown]
    digits = [mantissa.replace(".", "").rstrip("0") for mantissa, _ in parts]
    longest = max(len(one.lstrip("-")) for one in digits) or 1
    mantissas = [
        int(mantissa.replace(".", "")) // 10 ** (MOST_DIGITS - longest) for mantissa, _ in parts
    ]
    exponents = [
        int(exponent) + 1 - longest if mantissa else 0
        for mantissa, (_, exponent) in zip(mantissas, parts, strict=True)
    ]
    return ["f", fold(mantissas), fold(exponents)]


def _fold_texts(values: Sequence[str]) -> list[Any]:
    known: dict[str, int] = {}
    numbers = [known.setdefault(value, len(known)) for value in values]
    if len(known) > len(values) // 2:
        return ["j", list(values)]
    return ["s", list(known), fold(numbers)]


def _fold_lists(values: Sequence[list[Any]]) -> list[Any]:
    lengths = [len(value) for value in values]
    if 0 < max(lengths) <= SHORT and min(lengths) == max(lengths):
        return ["t", [fold(column) for column in zip(*values, strict=True)]]
    return ["l", fold(lengths), fold([entry for value in values for entry in value])]
