"""What the figures against L0 share: a panel for each site, a line for each method and width."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dbksvd.base.layout import KEYS
from dbksvd.report.figures.panels import (
    label_shares,
    make_panels,
    name_hidden,
    pick_metric,
    place_legend,
)
from dbksvd.report.figures.styles import Styles
from dbksvd.report.published import mark_published

MARGIN = 1.15  # of a logarithmic axis, on both sides; a single k does not fill it


def draw_against_l0(
    tables: dict[str, pd.DataFrame], styles: Styles, evaluation: str, metric: str
) -> Figure:
    """Draw a metric against L0, with what others have published for the same model and layer.

    Parameters
    ----------
    tables : dict of DataFrame
        ``scores`` and, where there are any, ``published`` numbers.
    styles : Styles
        How the methods look.
    evaluation, metric : str
        Where the metric stands in ``scores``.
    """
    scores = tables["scores"]
    table = pick_metric(scores, evaluation, metric).merge(
        pick_metric(scores, "heldout", "l0"), on=list(KEYS)
    )
    figure, panels = make_panels(styles.present(table))
    for axes, rows in panels:
        for label in styles.among(rows):
            _draw_line(axes, rows[rows["label"] == label], label, styles, metric)
        mark_published(axes, tables.get("published"), rows["site"].iloc[0], metric)
        axes.set(xlabel="L0, mean non-zero coefficients per token", xscale="log")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, rows["l0"].min() / MARGIN), max(high, rows["l0"].max() * MARGIN))
        ticks = sorted(rows["k"].unique())
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        label_shares(axes)
    place_legend(figure, name_hidden(styles.present(table), metric))
    return figure


def _draw_line(axes: Axes, rows: pd.DataFrame, label: str, styles: Styles, metric: str) -> None:
    """Draw one method, a line through each width it has."""
    for n_atoms, group in rows.groupby("n_atoms"):
        spread = group.groupby("k").agg(
            l0=("l0", "mean"),
            middle=(metric, "mean"),
            low=(metric, "min"),
            high=(metric, "max"),
        )
        several = rows["n_atoms"].nunique() > 1
        axes.errorbar(
            spread["l0"],
            spread["middle"],
            yerr=(spread[["middle", "high"]].to_numpy() - spread[["low", "middle"]].to_numpy()).T,
            label=f"{label}, {n_atoms} atoms" if several else label,
            color=styles.palette[label],
            marker=styles.markers[label],
            markersize=6,
            capsize=3,
            linewidth=1.6,
        )
