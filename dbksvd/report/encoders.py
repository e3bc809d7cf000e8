"""What each encoder makes of each dictionary, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dbksvd.base.files import read_seal
from dbksvd.base.layout import KEYS
from dbksvd.evaluation.encoders.settings import LABELS
from dbksvd.report.tables import explain_empty

COLUMNS = [*KEYS, "encoder", "metric", "value"]
# What tables and figures show, with its header.
METRICS = {
    "explained_variance": "variance explained",
    "sae_top_1_test_accuracy": "probing, 1 atom",
    "sae_top_5_test_accuracy": "probing, 5 atoms",
    "f1": "F1",
    "seen_explained_variance": "variance explained, seen pairs",
    "unseen_explained_variance": "variance explained, unseen pairs",
    "seen_f1": "F1, seen pairs",
    "unseen_f1": "F1, unseen pairs",
    "l0": "L0",
}


def collect_encoders(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the tidy table of all numbers: a row for each dictionary, encoder and metric."""
    table = [
        [*(row[key] for key in KEYS), encoder, metric, float(value)]
        for row in rows
        for encoder, scores in read_seal(row["encoders"])["scores"].items()
        for metric, value in scores.items()
    ]
    return pd.DataFrame(table, columns=COLUMNS)


def tabulate(table: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Return a row for each site, metric and method, and a column for each encoder.

    Parameters
    ----------
    table : DataFrame
        As :func:`collect_encoders` returns it.
    methods : list of str
        Names of methods, in the order of the rows.
    """
    kept = table[table["metric"].isin(METRICS)].copy()
    if kept.empty:
        return explain_empty(
            pd.DataFrame(columns=["site", "metric", "method"]),
            "expected a dictionary of the methods in encoders.methods, got none",
        )
    kept["rank"] = kept["method"].map({name: rank for rank, name in enumerate(methods)})
    kept["order"] = kept["metric"].map({name: order for order, name in enumerate(METRICS)})
    kept["metric"] = kept["metric"].map(METRICS)
    index = ["site", "order", "metric", "rank", "method", "n_atoms", "k"]
    wide = kept.pivot_table(index=index, columns="encoder", values="value", aggfunc="first")
    wide = wide.sort_index().reset_index().drop(columns=["order", "rank"])
    for encoder in LABELS:
        if encoder in wide:
            wide[encoder] = [
                "" if pd.isna(value) else f"{value:.{1 if metric == METRICS['l0'] else 3}f}"
                for metric, value in zip(wide["metric"], wide[encoder], strict=True)
            ]
    shown = [encoder for encoder in LABELS if encoder in wide]
    wide = wide[["site", "metric", "method", "n_atoms", "k", *shown]]
    return wide.rename(columns=LABELS).rename_axis(None, axis=1)
