"""Whether k is right: what is least at the true number of non-zeros, over L0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles

METRICS = {
    "decoder_projection": "decoder projection, n = m / 8",
    "decoder_projection_far": "decoder projection, n = m / 4",
    "coherence": "mean |cos| of two atoms",
}


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Projections and coherence against L0: a row of panels for each site, a line for each method.

    Each method's least value is ringed. A dotted line marks the true L0 where it is known.
    """
    import matplotlib.pyplot as plt

    from dbksvd.report.figures.panels import list_sites, place_legend

    table = _join(tables["scores"], styles)
    sites = list_sites(table)
    figure, panels = plt.subplots(
        len(sites), len(METRICS), figsize=(11.5, 3.4 * len(sites)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for row, site in zip(panels, sites, strict=True):
        here = table[table["site"] == site]
        for axes, (metric, title) in zip(row, METRICS.items(), strict=True):
            for label in styles.among(here):
                _draw_line(axes, here[here["label"] == label], metric, label, styles)
            axes.set(xscale="log", xlabel="L0", ylabel=title)
            axes.set_title(site if len(sites) > 1 else "", fontsize="medium")
            _mark_truth(axes, tables["scores"], site)
            ticks = sorted(here["k"].unique())
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.set_xticks([], minor=True)
    place_legend(figure)
    return figure


def _join(scores: pd.DataFrame, styles: Styles) -> pd.DataFrame:
    """Return a row for each dictionary of a method and size with several k."""
    from dbksvd.base.layout import KEYS
    from dbksvd.report.figures.panels import pick_metric

    table = pick_metric(scores, "heldout", "l0")
    for metric in METRICS:
        table = table.merge(pick_metric(scores, "heldout", metric), on=list(KEYS))
    table = styles.present(table[~table["method"].isin(styles.controls)])
    several = table.groupby(["site", "method", "n_atoms"])["k"].transform("nunique") > 1
    return table[several]


def _draw_line(axes: Axes, rows: pd.DataFrame, metric: str, label: str, styles: Styles) -> None:
    """Draw a method: a line through the means over seeds of each width, its least value ringed."""
    from dbksvd.report.figures.against_l0 import LINES

    colour = styles.palette[label]
    for place, (_, group) in enumerate(rows.groupby("n_atoms")):
        means = group.groupby("k")[["l0", metric]].mean().sort_values("l0")
        axes.plot(
            means["l0"], means[metric], LINES[place % len(LINES)], color=colour, markersize=5,
            marker=styles.markers[label], linewidth=1.4, label=label if place == 0 else None,
        )  # fmt: skip
        least = means.loc[means[metric].idxmin()]
        axes.scatter(
            least["l0"], least[metric], s=110, facecolors="none", edgecolors=colour, linewidths=1.3
        )


def _mark_truth(axes: Axes, scores: pd.DataFrame, site: str) -> None:
    """Draw a line at the true L0, where it is known."""
    chosen = (scores["site"] == site) & (scores["eval"] == "ground_truth")
    known = scores.loc[chosen & (scores["metric"] == "true_l0"), "value"]
    if len(known):
        axes.axvline(known.mean(), color="0.5", linestyle=":", label="true L0", zorder=0)


def applies(facts: Facts) -> bool:
    """Say whether a method is fitted at several k."""
    return facts.sparsities > 1


FIGURE = Figure(
    draw=draw,
    tables=("scores",),
    applies=applies,
    caption=(
        "What should be least where k is right (Chanin and Garriga-Alonso 2025). The decoder "
        "projection is the entry n B of the sorted products of B held-out samples with all m "
        "atoms; coherence is the mean absolute cosine of two atoms. A ring marks the least of "
        "each method: a ring at an end of the line says that no k tried is beyond it. The dotted "
        "line is the true L0 of synthetic samples. Controls are left out."
    ),
)
