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


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, atomically."""
    with replace_file(path) as temporary:
        table.to_csv(temporary, index=False)


def write_table(table: pd.DataFrame, csv: Path, markdown: Path, notes: Sequence[str] = ()) -> None:
    """Write a table to both files, each atomically; `notes` are lines below the Markdown one."""
    write_csv(table, csv)
    with replace_file(markdown) as temporary:
        text = table.to_markdown(index=False, disable_numparse=True)
        temporary.write_text("\n\n".join([text, *notes]) + "\n")
