"""Compare methods two by two at equal L0 and equal width, read off their curves over k."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from dbksvd.base.headline import Headline
from dbksvd.report.tables import explain_empty, format_spread

SIZES = ["site", "n_atoms"]
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


def read_seeds(fits: pd.DataFrame, metric: str, l0: float) -> dict[int, float]:
    """Return a metric at an L0 for each seed of the method's k whose L0 is nearest.

    A seed that has one k only has no curve of its own: its value is moved to `l0` along the curve
    of the means, by what that curve changes between the two L0.
    """
    fits = fits.dropna(subset=metric)
    if fits.empty:
        return {}
    means = fits.groupby("k")["l0"].mean()
    k = (np.log(means) - np.log(l0)).abs().idxmin()
    here = fits[fits["k"] == k]
    shift = read_curve(fits, metric, l0) - here[metric].mean()
    return {
        int(seed): value + shift for seed, value in zip(here["seed"], here[metric], strict=True)
    }


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
        Of each metric, what `method` has more than `other`: mean ± half the range over the seeds
        that both have. Columns without a value are left out. A table without rows has
        the reason in its ``attrs``.
    """
    fits = tabulate_fits(scores[scores["method"].isin(methods)])
    rows: list[dict[str, Any]] = []
    for size, group in fits.groupby(SIZES):
        of = dict(list(group.groupby("method")))
        for one, other in combinations([method for method in methods if method in of], 2):
            for l0 in list_targets(of[one], of[other]):
                row = {**dict(zip(SIZES, size, strict=True)), "L0": f"{l0:.1f}"}
                row |= {"method": one, "other": other}
                row |= compare_at(of[one], of[other], l0)
                rows.append(row)
    table = pd.DataFrame(rows, columns=[*SIZES, "L0", "method", "other", "seeds", *_list_titles()])
    table = table.drop(columns=[title for title in _list_titles() if (table[title] == "").all()])
    return table if rows else explain_empty(table, _explain_no_pair(fits, methods))


def compare_at(first: pd.DataFrame, second: pd.DataFrame, l0: float) -> dict[str, Any]:
    """Return the number of seeds that both methods have at an L0, and each metric's difference."""
    row: dict[str, Any] = {}
    for title in _list_titles():
        one, other = (read_seeds(fits, title, l0) for fits in (first, second))
        gains = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
        gains = [gain for gain in gains if np.isfinite(gain)]
        row[title] = format_spread(gains, 3, sign="+") if gains else ""
        row["seeds"] = max(row.get("seeds", 0), len(gains))
    return row


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
