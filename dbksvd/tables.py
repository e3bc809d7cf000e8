"""Tables for people: a mean with its spread, and one table as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dbksvd.files import replace_file


def format_spread(values: Sequence[float], decimals: int) -> str:
    """Return "mean ± half the range" of several values, a single one as it is."""
    text = f"{np.mean(values):.{decimals}f}"
    return f"{text} ± {np.ptp(values) / 2:.{decimals}f}" if len(values) > 1 else text


def write_table(table: pd.DataFrame, csv: Path, markdown: Path) -> None:
    """Write a table to both files, each atomically."""
    with replace_file(csv) as temporary:
        table.to_csv(temporary, index=False)
    with replace_file(markdown) as temporary:
        temporary.write_text(table.to_markdown(index=False, disable_numparse=True) + "\n")
