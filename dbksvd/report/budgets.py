"""Compare all methods at one budget: held-out variance explained at equal samples and seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dbksvd.report.noise import estimate, find_best, find_smallest, pool_seeds
from dbksvd.report.tables import BEST, add_notes, explain_empty, format_interval

SIZES = ["site", "n_atoms", "k"]
BUDGETS = {"samples_seen": "samples", "seconds": "seconds"}
DECIMALS = 3
ABOUT = (
    "± is half a 95 % interval over seeds; a method with one seed takes the others' spread. Bold "
    "(* in the CSV file): not told apart from the best of its size, at 5 % for all pairs of "
    "methods together. The logs hold no parts, so the noise of held-out documents is not in these "
    "intervals; it is in those of the table of scores."
)


def read_at(curve: pd.DataFrame, column: str, budget: float) -> float:
    """Return a fit's held-out variance explained when `column` was at `budget`.

    Between two measurements it is interpolated; before the first one it is not known (NaN).
    """
    curve = curve.sort_values(column)
    return float(np.interp(budget, curve[column], curve["fve_heldout"], left=np.nan))


def compare(curves: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return a row for each size and method, at the least samples and seconds that any took.

    A method's budget is its mean over seeds; the budget of a size is the least of its methods'.
    Values are "mean ± half a 95 % interval" over seeds; those that are not told apart from the best
    are marked `BEST`.

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
    rows: list[dict[str, Any]] = []
    smallest: dict[str, list[float]] = {}
    for size, group in curves.groupby(SIZES):
        ends = group.groupby(["method", "seed"])[list(BUDGETS)].max()
        budgets = ends.groupby("method").mean().min()
        seeds = {method: rows.groupby("seed") for method, rows in group.groupby("method")}
        present = {
            method: dict(zip(SIZES, size, strict=True), method=method, seeds=len(seeds[method]))
            for method in methods
            if method in seeds
        }
        for column, word in BUDGETS.items():
            values = {
                method: np.array([[read_at(fit, column, budgets[column])] for _, fit in each])
                for method, each in seeds.items()
            }
            texts, least = _format(values)
            smallest.setdefault(word, []).extend([least] if least else [])
            for method, row in present.items():
                row[word] = f"{budgets[column]:.0f}"
                row[f"variance explained at equal {word}"] = texts[method]
        rows += present.values()
    if not rows:
        return explain_empty(
            pd.DataFrame(columns=[*SIZES, "method", "seeds"]),
            "expected held-out variance explained in the log of a method that is no control, got "
            "none",
        )
    return add_notes(pd.DataFrame(rows), [ABOUT, *_tell_smallest(smallest)])


def _format(values: dict[str, np.ndarray]) -> tuple[dict[str, str], float | None]:
    """Return the text of each method, and the smallest difference that is told apart."""
    known = {method: each for method, each in values.items() if not np.isnan(each).any()}
    pooled = pool_seeds(known.values())
    best = find_best(known, pooled, lower_is_better=False)
    texts = dict.fromkeys(values, "not measured yet")
    common = np.array([each.mean(axis=0) for each in known.values()])
    for method, each in known.items():
        sure = estimate(each, common, pooled)
        text = format_interval(float(each.mean()), sure.widen() if sure else None, DECIMALS)
        texts[method] = text + BEST if method in best else text
    return texts, find_smallest(known.values(), pooled)


def _tell_smallest(smallest: dict[str, list[float]]) -> list[str]:
    """Return a line on what can be told apart, the median over sizes."""
    told = [
        f"{np.median(found):.{DECIMALS + 1}f} at equal {word}"
        for word, found in smallest.items()
        if found
    ]
    if not told:
        return []
    return [f"Smallest difference told apart in 80 % of experiments: {', '.join(told)}."]
