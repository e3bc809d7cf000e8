"""What the figures against L0 share: a panel for each site, a line for each method and width."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dbksvd.base.layout import KEYS
from dbksvd.report.figures.dots import draw_dots
from dbksvd.report.figures.floors import COLOUR, find_floor
from dbksvd.report.figures.panels import (
    label_shares,
    list_sites,
    make_panels,
    name_hidden,
    pick_metric,
    place_legend,
)
from dbksvd.report.figures.shares import mark_cut, name_cut
from dbksvd.report.figures.styles import Styles
from dbksvd.report.published import has_published, mark_published

LINES = ("-", "--", ":", "-.")  # of the widths of a method
FLOOR_REACH = 1.25  # of the line of a floor, on both sides of its k
MARGIN = 1.15  # of a logarithmic axis, on both sides; a single k does not fill it


def draw_against_l0(
    tables: dict[str, pd.DataFrame], styles: Styles, evaluation: str, metric: str, title: str
) -> Figure:
    """Draw a metric against L0, with what others have published for the same model and layer.

    With one k, and nothing published beside it, there are no lines: each method is a dot in a row.

    Parameters
    ----------
    tables : dict of DataFrame
        ``scores`` and, where there are any, ``published`` numbers.
    styles : Styles
        How the methods look.
    evaluation, metric : str
        Where the metric stands in ``scores``.
    title : str
        What the axis of the metric says.
    """
    scores = tables["scores"]
    table = pick_metric(scores, evaluation, metric).merge(
        pick_metric(scores, "heldout", "l0"), on=list(KEYS)
    )
    table = styles.present(table)
    here = table[table["site"].isin(list_sites(table))]
    published = tables.get("published")
    if here["k"].nunique() == 1 and not has_published(published, here["site"].unique(), metric):
        return draw_dots(table, styles, metric, title)
    figure, panels = make_panels(table)
    for axes, rows in panels:
        for label in styles.among(rows):
            _draw_line(axes, rows[rows["label"] == label], label, styles, metric)
        _draw_floors(axes, table, rows, styles, metric)
        mark_published(axes, published, rows["site"].iloc[0], metric)
        axes.set(xlabel="L0, mean non-zero coefficients per token", xscale="log")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, rows["l0"].min() / MARGIN), max(high, rows["l0"].max() * MARGIN))
        ticks = sorted(rows["k"].unique())
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        label_shares(axes)
        mark_cut(axes)
    figure.axes[0].set_ylabel(name_cut(title, figure.axes[0].yaxis))
    place_legend(figure, name_hidden(table, metric))
    return figure


def _draw_floors(
    axes: Axes, table: pd.DataFrame, rows: pd.DataFrame, styles: Styles, metric: str
) -> None:
    """Draw the floor of each k over a stretch of L0 around it, with its name below."""
    site = rows["site"].iloc[0]
    for k in sorted(rows["k"].unique()):
        floor = find_floor(table[table["k"] == k], site, styles, metric)
        if floor is None:
            continue
        ends = (k / FLOOR_REACH, k * FLOOR_REACH)
        axes.hlines(floor.value, *ends, color=COLOUR, linewidth=0.9, linestyle="--", zorder=0.5)
        axes.annotate(
            f"floor: {floor.name}",
            (ends[0], floor.value),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            color="0.4",
            fontsize="x-small",
        )


def _draw_line(axes: Axes, rows: pd.DataFrame, label: str, styles: Styles, metric: str) -> None:
    """Draw one method, a line through each width it has."""
    for place, (n_atoms, group) in enumerate(rows.groupby("n_atoms")):
        spread = group.groupby("k").agg(
            l0=("l0", "mean"),
            middle=(metric, "mean"),
            low=(metric, "min"),
            high=(metric, "max"),
        )
        several = rows["n_atoms"].nunique() > 1
        has_seeds = group["seed"].nunique() > 1
        spans = (spread[["middle", "high"]].to_numpy() - spread[["low", "middle"]].to_numpy()).T
        axes.errorbar(
            spread["l0"],
            spread["middle"],
            yerr=spans if has_seeds else None,
            label=f"{label}, {n_atoms} atoms" if several else label,
            color=styles.palette[label],
            marker=styles.markers[label],
            # widths of one method have its colour and marker
            linestyle=LINES[place % len(LINES)],
            markerfacecolor=styles.palette[label] if place == 0 else "white",
            markersize=6,
            capsize=3,
            linewidth=1.6,
        )
