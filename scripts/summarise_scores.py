"""Make the short table of an experiment: one row for each kind of dictionary, mean and spread."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from dbksvd.commands import report_errors
from dbksvd.tables import HEADLINES, format_spread, write_table

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--methods", type=json.loads, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, required=True)
    arguments = parser.parse_args()

    table = summarise(pd.read_csv(arguments.scores), arguments.methods)
    write_table(table, arguments.csv, arguments.markdown)


if __name__ == "__main__":
    main()
