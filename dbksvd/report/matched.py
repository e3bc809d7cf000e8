"""Compare methods two by two at equal L0 and equal width, read off their curves over k."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from dbksvd.base.headline import Headline
from dbksvd.report.measured import Measured, align, pool_sites, read_measured
from dbksvd.report.noise import SeedNoise
from dbksvd.report.noise import compare as compare_values
from dbksvd.report.tables import add_notes, explain_empty, format_interval

SIZES = ["site", "n_atoms"]
NOISE = " (noise)"
ABOUT = (
    "± is half an interval that holds, together with those of all pairs of methods of the width, "
    'with 95 %; "(noise)": it holds 0, so that the two are not told apart. A method with one seed '
    "takes the others' spread. That a value is read off between two k adds nothing to the interval."
)
# Two L0 whose ratio is at most this count as equal.
EQUAL = 1.005
L0 = Headline("L0", "heldout", "l0")
PROBES = {"sparse_probing_sae_probes": "probing", "sparse_probing": "AG News"}
METRICS = (
    Headline("variance explained", "heldout", "explained_variance"),
    *(
        Headline(f"{word}, {count}", evaluation, f"sae_top_{count}_test_accuracy")
        for evaluation, word in PROBES.items()
        for count in (1, 2, 5)
    ),
    Headline("F1", "ground_truth", "f1"),
    Headline("MCC", "ground_truth", "mcc"),
)


def tabulate_fits(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each dictionary: its keys, ``l0`` and a column for each of `METRICS`."""
    keys = [*SIZES, "method", "k", "seed"]
    columns = {
        headline.title: headline.select(scores).set_index(keys)["value"]
        for headline in (L0, *METRICS)
    }
    return pd.DataFrame(columns).rename(columns={"L0": "l0"}).dropna(subset="l0").reset_index()


def read_curve(fits: pd.DataFrame, metric: str, l0: float) -> float:
    """Return a method's metric at an L0 between two of its k, linear in log L0.

    The points of the curve are means over seeds; outside of them the value is not known (NaN), but
    for an L0 that counts as equal to that of an end.
    """
    means = fits.groupby("k")[["l0", metric]].mean().sort_values("l0")
    logs = np.log(means["l0"].to_numpy())
    place = np.log(l0)
    if not logs[0] - np.log(EQUAL) <= place <= logs[-1] + np.log(EQUAL):
        return float("nan")
    return float(np.interp(place, logs, means[metric]))  # beyond an end, its value


def read_nearest(fits: pd.DataFrame, metric: str, l0: float) -> tuple[int, float] | None:
    """Return the method's k whose L0 is nearest, and how far its values are to be moved to `l0`.

    A seed that has one k only has no curve of its own: its value is moved along the curve of the
    means, by what that curve changes between the two L0. None where nothing is known at `l0`.
    """
    fits = fits.dropna(subset=metric)
    if fits.empty:
        return None
    means = fits.groupby("k")["l0"].mean()
    k = int((np.log(means) - np.log(l0)).abs().idxmin())
    shift = read_curve(fits, metric, l0) - float(fits.loc[fits["k"] == k, metric].mean())
    return (k, shift) if np.isfinite(shift) else None


def list_targets(first: pd.DataFrame, second: pd.DataFrame) -> list[float]:
    """Return L0 that both methods' curves cover: for each k of both, the one between theirs.

    A curve of one k is a point; two whose L0 are equal (`EQUAL`) cover the L0 between them.
    """
    curves = [fits.groupby("k")["l0"].mean() for fits in (first, second)]
    low, high = max(curve.min() for curve in curves), min(curve.max() for curve in curves)
    if low > high * EQUAL:
        return []
    if low > high:  # the ends of two curves touch
        return [float(np.sqrt(low * high))]
    middles = np.sqrt(curves[0] * curves[1]).dropna()
    return sorted({float(np.clip(middle, low, high)) for middle in middles})


def match(scores: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return a row for each pair of methods, width and L0 that both cover.

    Parameters
    ----------
    scores : DataFrame
        ``scores.csv``.
    methods : list of str
        Methods to compare, in the order of the rows.

    Returns
    -------
    DataFrame
        Of each metric, what `method` has more than `other`: mean ± half an interval that holds for
        all pairs together (:mod:`dbksvd.report.noise`), and "(noise)" where that interval holds 0.
        ``seeds`` are those of either. Columns without a value are left out. A table without rows
        has the reason in its ``attrs``.
    """
    scores = scores[scores["method"].isin(methods)]
    fits = tabulate_fits(scores)
    found = [_Metric.read(scores, headline) for headline in METRICS]
    rows: list[dict[str, Any]] = []
    for size, group in fits.groupby(SIZES):
        of = dict(list(group.groupby("method")))
        for one, other in combinations([method for method in methods if method in of], 2):
            for l0 in list_targets(of[one], of[other]):
                row = {**dict(zip(SIZES, size, strict=True)), "L0": f"{l0:.1f}"}
                row |= {"method": one, "other": other}
                row |= compare_at(of[one], of[other], l0, found, len(of))
                rows.append(row)
    table = pd.DataFrame(rows, columns=[*SIZES, "L0", "method", "other", "seeds", *_list_titles()])
    table = table.drop(columns=[title for title in _list_titles() if (table[title] == "").all()])
    if not rows:
        return explain_empty(table, _explain_no_pair(fits, methods))
    return add_notes(table, [ABOUT])


@dataclass(frozen=True)
class _Metric:
    """One score of all dictionaries, and how noisy it is over seeds at each site."""

    title: str
    measured: dict[tuple[str, str, int, int], Measured]
    pooled: dict[str, SeedNoise | None]

    @classmethod
    def read(cls, scores: pd.DataFrame, headline: Headline) -> _Metric:
        measured = read_measured(scores, headline)
        return cls(headline.title, measured, pool_sites(measured))


def compare_at(
    first: pd.DataFrame, second: pd.DataFrame, l0: float, metrics: list[_Metric], methods: int
) -> dict[str, Any]:
    """Return the seeds of two methods at an L0, and each metric's difference.

    Parameters
    ----------
    first, second : DataFrame
        Their rows of :func:`tabulate_fits`.
    l0 : float
        Where to compare.
    metrics : list of _Metric
        What to compare.
    methods : int
        How many methods are compared with each other.
    """
    row: dict[str, Any] = {"seeds": ""}
    for metric in metrics:
        row[metric.title] = ""
        sides, moved = {}, []
        for fits in (first, second):
            nearest = read_nearest(fits, metric.title, l0)
            if nearest is not None:
                site, n_atoms, method = fits[[*SIZES, "method"]].iloc[0]
                sides[method] = metric.measured[site, method, n_atoms, nearest[0]]
                moved.append(nearest[1])
        if len(sides) == 2:
            values = [table + by for table, by in zip(align(sides).values(), moved, strict=True)]
            row[metric.title] = _format(values, metric.pooled[site], methods)
            row["seeds"] = row["seeds"] or ", ".join(str(each.seeds) for each in sides.values())
    return row


def _format(values: list[np.ndarray], pooled: SeedNoise | None, methods: int) -> str:
    """Return a difference with its interval, and whether it is noise."""
    found = compare_values(values[0], values[1], pooled)
    half = found.widen(methods) if found else None
    text = format_interval(float(values[0].mean() - values[1].mean()), half, 3, sign="+")
    return text + NOISE if found and not found.is_told_apart(methods) else text


def _explain_no_pair(fits: pd.DataFrame, methods: list[str]) -> str:
    """Return why no two methods can be compared."""
    found = fits["method"].nunique()
    if found < 2:
        return f"expected two methods or more to compare, got {found} of {len(methods)}"
    several = fits.groupby(SIZES)["method"].nunique()
    if several.max() < 2:
        return "expected two methods with as many atoms at one site, got none"
    spans = [
        f"{method} {low:.1f}" if high - low < 0.05 else f"{method} {low:.1f} to {high:.1f}"
        for method, low, high in fits.groupby("method")["l0"]
        .agg(["min", "max"])
        .itertuples(name=None)
    ]
    return (
        "expected two methods of one width whose L0 are equal or overlap over their k, "
        f"got L0 {', '.join(spans)}; more k give curves that can be compared"
    )


def _list_titles() -> list[str]:
    return [headline.title for headline in METRICS]
