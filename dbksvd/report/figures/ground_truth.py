"""What the figures of scores against known features share."""

from __future__ import annotations

import pandas as pd

from dbksvd.base.layout import KEYS
from dbksvd.report.figures.panels import pick_metric
from dbksvd.report.figures.styles import Styles


def join_metrics(scores: pd.DataFrame, metrics: list[str], styles: Styles) -> pd.DataFrame:
    """Return a row for each dictionary with a known truth, its metrics in columns."""
    table = pick_metric(scores, "ground_truth", metrics[0])
    for metric in metrics[1:]:
        table = table.merge(pick_metric(scores, "ground_truth", metric), on=list(KEYS))
    return styles.present(table)
