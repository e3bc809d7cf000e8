"""Dots with the range over seeds: a row for each method."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dbksvd.report.figures.floors import draw_floor, find_floor
from dbksvd.report.figures.panels import list_sites, make_panels
from dbksvd.report.figures.shares import ShareFormatter, mark_cut, name_cut
from dbksvd.report.figures.styles import Styles

ROW = 0.3  # inches, of a method
EDGES = 1.3  # inches, of title and axis


def draw_range(axes: Axes, values: pd.Series, height: float, label: str, styles: Styles) -> None:
    """Draw a marker at the mean of a method's seeds, and a bar over their range if there are more.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    values : Series
        The value of each seed.
    height : float
        Row of the method.
    label : str
        How the method is written.
    styles : Styles
        How it looks.
    """
    middle = values.mean()
    spread = [[middle - values.min()], [values.max() - middle]]
    axes.errorbar(
        middle,
        height,
        xerr=spread if len(values) > 1 else None,
        color=styles.palette[label],
        marker=styles.markers[label],
        markersize=6,
        capsize=3,
        linewidth=1.6,
    )


def draw_dots(table: pd.DataFrame, styles: Styles, metric: str, title: str) -> Figure:
    """Return a figure of one k: a panel for each site, a row for each method and width.

    Parameters
    ----------
    table : DataFrame
        Rows with ``label``, ``n_atoms``, ``k``, ``l0`` and the metric.
    styles : Styles
        How the methods look.
    metric : str
        Column of `table`.
    title : str
        What the axis of the metric says.
    """
    whole = table
    table = table[table["site"].isin(list_sites(table))].copy()
    k = int(table["k"].iloc[0])
    several = table["n_atoms"].nunique() > 1
    groups = dict(list(table.groupby(["label", "n_atoms"])))
    keys = [
        (label, width)
        for label in styles.among(table)
        for width in sorted(table.loc[table["label"] == label, "n_atoms"].unique())
    ]
    figure, panels = make_panels(table)
    figure.set_figheight(EDGES + ROW * len(keys))
    for axes, rows in panels:
        for height, (label, width) in enumerate(keys):
            mine = rows[(rows["label"] == label) & (rows["n_atoms"] == width)]
            if len(mine):
                draw_range(axes, mine[metric], height, label, styles)
        low = axes.get_xlim()[0]
        axes.set_xlim(left=max(low, 0) if (rows[metric] > 0).any() else low)
        draw_floor(axes, find_floor(whole, rows["site"].iloc[0], styles, metric), "x")
        axes.xaxis.set_major_formatter(ShareFormatter())
        axes.set_xlabel(name_cut(title, axes.xaxis))
        axes.grid(axis="both", color="0.92")
        axes.set_axisbelow(True)
        mark_cut(axes, "x")
    texts = [_name_row(*key, groups[key], metric, k, several) for key in keys]
    panels[0][0].set_yticks(range(len(keys)), texts)
    panels[0][0].set_ylim(len(keys) - 0.5, -0.5)
    figure.suptitle(f"k = {k}", fontsize="medium")
    return figure


def _name_row(
    label: str, width: int, rows: pd.DataFrame, metric: str, k: int, several: bool
) -> str:
    """Return a method with its width where there are several, an L0 that is not k, what is hidden.

    Parameters
    ----------
    label : str
        How the method is written.
    width : int
        Atoms.
    rows : DataFrame
        Its fits.
    metric : str
        Column of the metric, which is hidden where it lies below 0.
    k : int
        Non-zeros that were asked for.
    several : bool
        Whether there are several widths.
    """
    text = f"{label}, {width} atoms" if several else label
    notes = []
    if f"{rows['l0'].mean():.1f}" != f"{k:.1f}":
        notes.append(f"L0 {rows['l0'].mean():.1f}")
    if rows[metric].max() < 0:
        notes.append(f"{rows[metric].max():.0%}")
    return f"{text} ({', '.join(notes)})" if notes else text
