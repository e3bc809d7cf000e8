"""How well dictionaries find the true features, against the variance they explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """F1 and MCC against held-out variance explained: a small point for each dictionary.

    The large marker is the mean over seeds; its bars reach from the lowest to the highest seed.
    """
    import matplotlib.pyplot as plt

    from dbksvd.report.figures.floors import draw_floor, find_floor
    from dbksvd.report.figures.ground_truth import join_metrics
    from dbksvd.report.figures.shares import ShareFormatter, mark_cut, name_cut

    names = {"f1": "F1 of latents as detectors", "mcc": "MCC of atoms and true features"}
    table = join_metrics(tables["scores"], ["explained_variance", *names], styles)
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.4), sharex=True, layout="constrained")
    for axes, (metric, title) in zip(panels, names.items(), strict=True):
        for label in styles.among(table):
            rows = table[table["label"] == label]
            _draw_points(axes, rows, metric, label, styles)
        axes.set_ylabel(title)
        axes.set_ylim(0, 1.03)  # room for the marks of a score of 1
        draw_floor(axes, find_floor(table, table["site"].iloc[0], styles, metric))
        axes.xaxis.set_major_formatter(ShareFormatter())
    for axes in panels:  # which share their x axis
        axes.set_xlabel(name_cut("Variance explained on held-out samples", axes.xaxis))
        mark_cut(axes, "x")
    handles, labels = panels[1].get_legend_handles_labels()
    panels[1].legend(
        handles, labels, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), title=None
    )
    return figure


def _draw_points(axes: Axes, rows: pd.DataFrame, metric: str, label: str, styles: Styles) -> None:
    """Draw the dictionaries of one method, and the mean and range over seeds of each size."""
    colour, marker = styles.palette[label], styles.markers[label]
    axes.scatter(
        rows["explained_variance"], rows[metric], s=10, color=colour, marker=marker, alpha=0.4
    )
    for position, (_, group) in enumerate(rows.groupby(["n_atoms", "k"])):
        x, y = group["explained_variance"], group[metric]
        several = len(group) > 1
        axes.errorbar(
            x.mean(),
            y.mean(),
            xerr=[[x.mean() - x.min()], [x.max() - x.mean()]] if several else None,
            yerr=[[y.mean() - y.min()], [y.max() - y.mean()]] if several else None,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.2,
            linestyle="none",
            label=label if position == 0 else None,
        )


def applies(facts: Facts) -> bool:
    """Say whether there are samples whose features are known."""
    return facts.ground_truth is not None


FIGURE = Figure(
    draw=draw,
    tables=("scores",),
    applies=applies,
    caption=(
        "How well latents detect the true features (F1, mean over latents, each scored against the "
        "feature its atom is nearest to) and how near atoms are to them (MCC, mean cosine of the "
        "best one-to-one matching), against the variance explained. Small points are dictionaries, "
        "large ones means over seeds, bars reach from the lowest to the highest seed. Up and right "
        "is better. The grey line is the floor: the best of the controls that learn nothing of the "
        "data. Signed dictionaries are scored sign-split, with twice the latents. The samples are "
        "synthetic, of a model whose features are known; figures of a layer show other samples."
    ),
)
