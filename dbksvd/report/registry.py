"""The tables for people: a name, and the function that makes the table.

Each is ``make(source, methods)``: from ``scores.csv`` or ``curves.csv`` and the names of methods,
in the order of the rows, to the table. This list does not decide whether a table is made again
(workflow/source_hash.py): the function's module does, with all that it imports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dbksvd.base.registry import find_entry

if TYPE_CHECKING:
    import pandas as pd

TABLES = {
    "summary": "dbksvd.report.summary:summarise",
    "differences": "dbksvd.report.differences:tabulate_differences",
    "matched": "dbksvd.report.matched:match",
    "budgets": "dbksvd.report.budgets:compare",
}


def find_table(name: str) -> Callable[[pd.DataFrame, list[str]], pd.DataFrame]:
    """Return the function that makes a table.

    Raises
    ------
    ValueError
        If no such table is registered.
    """
    make: Callable[[pd.DataFrame, list[str]], pd.DataFrame] = find_entry(TABLES, name, "table")
    return make
