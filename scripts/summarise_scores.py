"""Make the short table of an experiment: one row for each kind of dictionary, mean and spread."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from dbksvd.commands import report_errors
from dbksvd.files import replace_file

KEYS = ["site", "method", "n_atoms", "k"]
# Header in the table, eval and metric in scores.csv, decimals.
COLUMNS = (
    ("variance explained", "heldout", "explained_variance", 3),
    ("L0", "heldout", "l0", 1),
    ("unused atoms", "heldout", "dead_atoms", 0),
    ("probing, 1 atom", "sparse_probing_sae_probes", "sae_top_1_test_accuracy", 3),
    ("probing, 5 atoms", "sparse_probing_sae_probes", "sae_top_5_test_accuracy", 3),
    ("fit seconds", "fit", "seconds", 0),
)


def summarise(scores: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return one row per site × method × n_atoms × k: "mean ± half the range" over seeds."""
    rank = {method: position for position, method in enumerate(methods)}
    rows = []
    for key, group in scores.groupby(KEYS):
        row = dict(zip(KEYS, key, strict=True), seeds=group["seed"].nunique())
        for header, evaluation, metric, decimals in COLUMNS:
            chosen = (group["eval"] == evaluation) & (group["metric"] == metric)
            row[header] = _format(group.loc[chosen, "value"], decimals)
        rows.append(row)
    table = pd.DataFrame(rows)
    table["rank"] = table["method"].map(rank)
    table = table.sort_values(["site", "n_atoms", "k", "rank"])
    empty = [header for header, *_ in COLUMNS if (table[header] == "").all()]
    return table.drop(columns=["rank", *empty])


def _format(values: pd.Series, decimals: int) -> str:
    if values.empty:
        return ""
    text = f"{values.mean():.{decimals}f}"
    spread = (values.max() - values.min()) / 2
    return f"{text} ± {spread:.{decimals}f}" if len(values) > 1 else text


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--methods", type=json.loads, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, required=True)
    arguments = parser.parse_args()

    table = summarise(pd.read_csv(arguments.scores), arguments.methods)
    with replace_file(arguments.csv) as temporary:
        table.to_csv(temporary, index=False)
    with replace_file(arguments.markdown) as temporary:
        temporary.write_text(table.to_markdown(index=False, disable_numparse=True) + "\n")


if __name__ == "__main__":
    main()
