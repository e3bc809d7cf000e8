"""On which scores the first method differs from each of the others, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from dbksvd.base.headline import Headline
from dbksvd.report.headlines import list_headlines
from dbksvd.report.measured import Measured, align, pool_sites, read_measured
from dbksvd.report.noise import Estimate, SeedNoise, compare
from dbksvd.report.tables import add_notes, explain_empty

SIZES = ["site", "n_atoms", "k"]
COLUMNS = [
    *(*SIZES, "score", "reference", "method", "seeds", "parts"),
    *("difference", "low", "high", "verdict", "smallest"),
]
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "not told apart", "not compared"
ABOUT = (
    "The reference is the first method of the config that is no control; a row is its score minus "
    "that of the other method. From low to high: an interval that holds, together with those of "
    "all pairs of methods of the score, with 95 %. Better, worse: told apart, since the interval "
    "does not hold 0. Smallest: the true difference that this experiment tells apart in 80 % of "
    "cases. Seeds: of the reference and of the other; one seed takes the others' spread. Parts: "
    "data sets, classes or groups of documents over which the two are paired. Not compared: one "
    "seed and no parts, so that nothing says how noisy the score is."
)


def tabulate_differences(scores: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return a row for each size, score and method beside the first of `methods`.

    Parameters
    ----------
    scores : DataFrame
        ``scores.csv``.
    methods : list of str
        Methods to compare; the first that has scores is the reference.

    Returns
    -------
    DataFrame
        With `COLUMNS`. Numbers are text with one decimal more than in the table of scores.
    """
    scores = scores[scores["method"].isin(methods)]
    methods = [method for method in methods if method in set(scores["method"])]
    rows: list[dict[str, Any]] = []
    for headline in list_headlines():
        if headline.is_compared:
            rows += _compare_score(read_measured(scores, headline), headline, methods)
    table = pd.DataFrame(rows, columns=COLUMNS)
    if not rows:
        reason = "expected a score that two methods of one site, width and k have, got none"
        return explain_empty(table, reason)
    table = table.sort_values(SIZES, kind="stable", ignore_index=True)
    shown = set(table["score"])
    warnings = {line.warning for line in list_headlines() if line.title in shown} - {""}
    return add_notes(table, [ABOUT, *sorted(warnings)])


def _compare_score(
    measured: dict[tuple[str, str, int, int], Measured], headline: Headline, methods: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one score."""
    pooled = pool_sites(measured)
    sizes = sorted({(site, n_atoms, k) for site, _, n_atoms, k in measured})
    for site, n_atoms, k in sizes:
        here = {
            method: measured[site, method, n_atoms, k]
            for method in methods
            if (site, method, n_atoms, k) in measured
        }
        if methods[0] in here and len(here) > 1:
            keys = dict(zip(SIZES, (site, n_atoms, k), strict=True))
            for row in _compare_size(here, methods[0], headline, pooled[site]):
                yield keys | row


def _compare_size(
    here: dict[str, Measured], reference: str, headline: Headline, pooled: SeedNoise | None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one score at one size."""
    values = align(here)
    for method in here:
        if method == reference:
            continue
        found = compare(values[reference], values[method], pooled)
        difference = float(values[reference].mean() - values[method].mean())
        parts = values[method].shape[1]
        row = {
            "score": headline.title,
            "reference": reference,
            "method": method,
            "seeds": f"{here[reference].seeds}, {here[method].seeds}",
            "parts": parts if parts > 1 else "",
            "difference": _format(difference, headline),
        }
        yield row | _judge(found, len(values), headline)


def _judge(found: Estimate | None, methods: int, headline: Headline) -> dict[str, str]:
    """Return interval, verdict and smallest difference."""
    if found is None:
        return {"low": "", "high": "", "verdict": UNKNOWN, "smallest": ""}
    half = found.widen(methods)
    is_better = (found.value > 0) != headline.lower_is_better
    told = BETTER if is_better else WORSE
    return {
        "low": _format(found.value - half, headline),
        "high": _format(found.value + half, headline),
        "verdict": told if found.is_told_apart(methods) else SAME,
        "smallest": _format(found.find_smallest(methods), headline).removeprefix("+"),
    }


def _format(value: float, headline: Headline) -> str:
    return f"{value:+.{headline.decimals + 1}f}"
