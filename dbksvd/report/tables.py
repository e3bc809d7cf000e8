"""Tables as text: a mean with its spread, CSV, Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dbksvd.base.files import replace_file


def format_spread(values: Sequence[float], decimals: int, *, sign: str = "") -> str:
    """Return "mean ± half the range" of several values, a single one as it is.

    `sign` is "+" where a positive mean is to have one.
    """
    text = f"{np.mean(values):{sign}.{decimals}f}"
    return f"{text} ± {np.ptp(values) / 2:.{decimals}f}" if len(values) > 1 else text


def format_interval(value: float, half: float | None, decimals: int, *, sign: str = "") -> str:
    """Return "value ± half the interval"; the value alone where the interval is not known.

    `sign` is "+" where a positive value is to have one.
    """
    text = f"{value:{sign}.{decimals}f}"
    return text if half is None else f"{text} ± {half:.{decimals}f}"


# Behind a cell that stands out: bold in Markdown, a star in CSV, which has no bold.
BEST = " *"
# Where a table without rows keeps the reason, and the column that a file has in its place.
REASON, NO_ROWS = "reason", "no rows"
NOTES = "notes"


def add_notes(table: pd.DataFrame, notes: Sequence[str]) -> pd.DataFrame:
    """Return a table that knows the lines to write below it."""
    table.attrs[NOTES] = [*table.attrs.get(NOTES, ()), *notes]
    return table


def _embolden(cell: object) -> object:
    if isinstance(cell, str) and cell.endswith(BEST):
        return f"**{cell.removesuffix(BEST)}**"
    return cell


def explain_empty(table: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Return a table without rows that knows why: :func:`write_table` writes the reason."""
    table.attrs[REASON] = reason
    return table


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, atomically."""
    with replace_file(path) as temporary:
        table.to_csv(temporary, index=False)


def write_table(table: pd.DataFrame, csv: Path, markdown: Path, notes: Sequence[str] = ()) -> None:
    """Write a table to both files, each atomically; for one without rows, the reason.

    Parameters
    ----------
    table : DataFrame
        What is written.
    csv, markdown : Path
        The files.
    notes : sequence of str
        Lines below the Markdown table, after those of the table itself (:func:`add_notes`).
    """
    notes = [*table.attrs.get(NOTES, ()), *notes]
    if table.empty:
        reason = table.attrs.get(REASON, "nothing to show")
        table = pd.DataFrame({NO_ROWS: [reason]})
    write_csv(table, csv)
    with replace_file(markdown) as temporary:
        text = table.map(_embolden).to_markdown(index=False, disable_numparse=True)
        temporary.write_text("\n\n".join([text, *notes]) + "\n")
