"""What the figures share: panels side by side, legends, axes, rows of the tables."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from dbksvd.base.layout import KEYS
from dbksvd.base.site import Site
from dbksvd.report.figures.shares import ShareFormatter
from dbksvd.report.figures.styles import Styles

SIZE = (7.0, 4.2)  # inches, of one panel with its legend
WIDTH = 5.2  # inches, of each further panel
LEGEND_WIDTH = 1.8  # inches, of the legend that SIZE has room for
LEGEND_EDGES = 0.4  # inches, above and below a long legend


def pick_metric(scores: pd.DataFrame, evaluation: str, metric: str) -> pd.DataFrame:
    """Return the rows of one metric, its value in a column named after it.

    Raises
    ------
    ValueError
        If the table holds no such metric.
    """
    rows = scores[(scores["eval"] == evaluation) & (scores["metric"] == metric)]
    if rows.empty:
        raise ValueError(f"scores: expected rows of {evaluation} {metric}, got none")
    return rows.drop(columns=["eval", "metric"]).rename(columns={"value": metric})


def list_sites(table: pd.DataFrame) -> list[str]:
    """Return the model's sites in order, as it was trained; others only where there is no such."""
    sites = sorted(table["site"].unique(), key=lambda site: (len(site), site))
    trained = [site for site in sites if not Site.parse(site).is_random]
    return [site for site in trained if site != "synthetic"] or trained or sites


def find_shared_size(table: pd.DataFrame) -> tuple[int, int]:
    """Return the (n_atoms, k) with most fits: the one that all methods and seeds share."""
    fits = table.drop_duplicates(list(KEYS))
    n_atoms, k = fits.groupby(["n_atoms", "k"]).size().idxmax()
    return int(n_atoms), int(k)


def keep_shared_size(table: pd.DataFrame, styles: Styles) -> tuple[pd.DataFrame, str]:
    """Return the rows of the (n_atoms, k) that most fits share, controls of any width with them.

    Returns
    -------
    table : DataFrame
        The rows.
    title : str
        The size in words.
    """
    n_atoms, k = find_shared_size(table[~table["method"].isin(styles.controls)])
    rows = table[table["k"] == k]
    # of a control with several widths, the nearest: seeds of one width are averaged, not widths
    away = (rows["n_atoms"] - n_atoms).abs()
    is_nearest = away == away.groupby([rows["site"], rows["method"]]).transform("min")
    is_control = rows["method"].isin(styles.controls)
    kept = rows[(rows["n_atoms"] == n_atoms) | (is_control & is_nearest)]
    return kept, f"{n_atoms} atoms, k = {k}"


def make_panels(table: pd.DataFrame) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """Return a figure with one panel for each site, and the rows of each."""
    sites = list_sites(table)
    figure, panels = plt.subplots(
        1,
        len(sites),
        figsize=(SIZE[0] + WIDTH * (len(sites) - 1), SIZE[1]),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, site in zip(panels[0], sites, strict=True):
        if len(sites) > 1:
            axes.set_title(site, fontsize="medium")
    rows = [table[table["site"] == site] for site in sites]
    return figure, list(zip(panels[0], rows, strict=True))


def place_legend(figure: Figure, names: Mapping[str, str] | None = None) -> None:
    """Put one legend with the labels of all panels on the right of the last one, renamed."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        found, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
        legend = axes.get_legend()
        if legend is not None:
            legend.remove()
    legend = figure.axes[-1].legend(
        list(handles.values()),
        [(names or {}).get(label, label) for label in handles],
        title=None,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    make_room(figure, legend)


def make_room(figure: Figure, legend: Legend) -> None:
    """Make a figure so large that its panels keep their size beside a legend, however long."""
    box = legend.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    width, height = box.width / figure.dpi, box.height / figure.dpi
    figure.set_figwidth(figure.get_figwidth() + max(0.0, width - LEGEND_WIDTH))
    figure.set_figheight(max(figure.get_figheight(), height + LEGEND_EDGES))


def name_hidden(table: pd.DataFrame, metric: str) -> dict[str, str]:
    """Return legend entries for what lies below the axis, with the value that is not seen."""
    highest = table.groupby("label", observed=True)[metric].max()
    return {label: f"{label} ({value:.0%})" for label, value in highest.items() if value < 0}


def label_shares(axes: Axes) -> None:
    """Label a y axis in percent; it ends at 0, below which only a control can lie."""
    axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
    axes.yaxis.set_major_formatter(ShareFormatter())


def label_powers(axes: Axes) -> None:
    """Label a logarithmic x axis at 1, 2 and 5 times powers of ten, as 200k or 1M."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
