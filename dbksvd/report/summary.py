"""The short table of an experiment: one row for each kind of dictionary, mean and spread."""

from __future__ import annotations

import pandas as pd

from dbksvd.base.layout import FAILED, KEYS
from dbksvd.report.headlines import list_headlines
from dbksvd.report.tables import explain_empty, format_spread

SIZES = [key for key in KEYS if key != "seed"]


def summarise(scores: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return one row per site × method × n_atoms × k: "mean ± half the range" over seeds.

    Columns without a value are left out. Where a dictionary could not be made or scored, the last
    column says "failed: reason", with its seed where other seeds stand.
    """
    rank = {method: position for position, method in enumerate(methods)}
    rows = []
    for size, group in scores.groupby(SIZES):
        failed = group[group["eval"] == FAILED]
        seeds = group.loc[group["eval"] != FAILED, "seed"].nunique()
        row = dict(zip(SIZES, size, strict=True), seeds=seeds)
        for headline in list_headlines():
            values = (headline.select(group)["value"] / headline.unit).tolist()
            row[headline.title] = format_spread(values, headline.decimals) if values else ""
        reasons = failed.drop_duplicates("metric")[["seed", "metric"]]
        row[FAILED] = "; ".join(
            f"seed {seed} failed: {reason}" if seeds else f"failed: {reason}"
            for seed, reason in reasons.itertuples(index=False)
        )
        rows.append(row)
    if not rows:
        return explain_empty(
            pd.DataFrame(columns=[*SIZES, "seeds"]),
            "expected scores of at least one dictionary, got none",
        )
    table = pd.DataFrame(rows)
    table["rank"] = table["method"].map(rank)
    table = table.sort_values(["site", "n_atoms", "k", "rank"])
    optional = [FAILED, *(headline.title for headline in list_headlines())]
    empty = [title for title in optional if (table[title] == "").all()]
    return table.drop(columns=["rank", *empty])
