"""Make the short table of an experiment: one row for each kind of dictionary, mean and spread."""

from __future__ import annotations

import pandas as pd

from dbksvd.base.errors import report_errors
from dbksvd.report.tables import HEADLINES, format_spread, run_table

KEYS = ["site", "method", "n_atoms", "k"]


def summarise(scores: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return one row per site × method × n_atoms × k: "mean ± half the range" over seeds."""
    rank = {method: position for position, method in enumerate(methods)}
    rows = []
    for key, group in scores.groupby(KEYS):
        row = dict(zip(KEYS, key, strict=True), seeds=group["seed"].nunique())
        for headline in HEADLINES:
            values = (headline.select(group)["value"] / headline.unit).tolist()
            row[headline.title] = format_spread(values, headline.decimals) if values else ""
        rows.append(row)
    table = pd.DataFrame(rows)
    table["rank"] = table["method"].map(rank)
    table = table.sort_values(["site", "n_atoms", "k", "rank"])
    empty = [headline.title for headline in HEADLINES if (table[headline.title] == "").all()]
    return table.drop(columns=["rank", *empty])


@report_errors()
def main() -> None:
    run_table(__doc__, "scores", summarise)


if __name__ == "__main__":
    main()
