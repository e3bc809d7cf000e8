"""Compare all methods at one budget: held-out variance explained at equal samples and seconds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dbksvd.report.tables import explain_empty, format_spread

SIZES = ["site", "n_atoms", "k"]
BUDGETS = {"samples_seen": "samples", "seconds": "seconds"}


def read_at(curve: pd.DataFrame, column: str, budget: float) -> float:
    """Return a fit's held-out variance explained when `column` was at `budget`.

    Between two measurements it is interpolated; before the first one it is not known (NaN).
    """
    curve = curve.sort_values(column)
    return float(np.interp(budget, curve[column], curve["fve_heldout"], left=np.nan))


def compare(curves: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return a row for each size and method, at the least samples and seconds that any took.

    A method's budget is its mean over seeds; the budget of a size is the least of its methods'.
    Values are "mean ± half the range" over seeds.

    Parameters
    ----------
    curves : DataFrame
        Logs of all fits: the keys of a fit, ``samples_seen``, ``seconds``, ``fve_heldout``.
    methods : list of str
        Methods to compare, in the order of the rows.

    Returns
    -------
    DataFrame
        Without a method to compare, no rows and the reason in its ``attrs``.
    """
    curves = curves[curves["method"].isin(methods)].dropna(subset=["fve_heldout"])
    rows = []
    for size, group in curves.groupby(SIZES):
        ends = group.groupby(["method", "seed"])[list(BUDGETS)].max()
        budgets = ends.groupby("method").mean().min()
        for method in (method for method in methods if method in set(group["method"])):
            fits = [fit for _, fit in group[group["method"] == method].groupby("seed")]
            row = dict(zip(SIZES, size, strict=True), method=method, seeds=len(fits))
            for column, word in BUDGETS.items():
                values = [read_at(fit, column, budgets[column]) for fit in fits]
                row[word] = f"{budgets[column]:.0f}"
                row[f"variance explained at equal {word}"] = _format(values)
            rows.append(row)
    if not rows:
        return explain_empty(
            pd.DataFrame(columns=[*SIZES, "method", "seeds"]),
            "expected held-out variance explained in the log of a method that is no control, got "
            "none",
        )
    return pd.DataFrame(rows)


def _format(values: list[float]) -> str:
    if np.isnan(values).any():
        return "not measured yet"
    return format_spread(values, 3)
