"""What a score owes to the dictionary, and what to the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles

# Colour and marker of each encoder; the method's own is an open ring around the others.
LOOKS = {
    "own": ("0.1", "o"),
    "mp": ("#0072b2", "s"),
    "ols": ("#d55e00", "D"),
    "ols_mean": ("#7a2a00", "^"),
    "lasso": ("#56b4e9", "v"),
    "lasso_refit": ("#009e73", "P"),
}
SHOWN = (
    "explained_variance",
    "sae_top_5_test_accuracy",
    "f1",
    "unseen_explained_variance",
    "unseen_f1",
)
WIDTH, ROW, EDGES, LEGEND = 3.4, 0.36, 1.2, 3.2  # inches: a panel, a method, title, names


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Draw a panel for each site and metric: a row for each dictionary, a marker an encoder."""
    import matplotlib.pyplot as plt

    from dbksvd.report.encoders import METRICS
    from dbksvd.report.figures.shares import CUT, ShareFormatter, begins_at_zero, mark_cut

    table = styles.present(tables["encoder_scores"])
    panels = [
        (site, metric, rows)
        for site in sorted(table["site"].unique())
        for metric in SHOWN
        if not (rows := table[(table["site"] == site) & (table["metric"] == metric)]).empty
    ]
    if not panels:
        raise ValueError("encoder_scores: expected scores of at least one dictionary, got none")
    labels = styles.among(table)
    figure, grid = plt.subplots(
        1,
        len(panels),
        figsize=(LEGEND + WIDTH * len(panels), EDGES + ROW * len(labels)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, (site, metric, rows) in zip(grid[0], panels, strict=True):
        _draw_panel(axes, rows, labels)
        axes.set_title(site, fontsize="medium")
        axes.set_xlabel(METRICS[metric])
        if metric.endswith("explained_variance"):
            axes.set_xlim(left=max(axes.get_xlim()[0], 0))
            axes.xaxis.set_major_formatter(ShareFormatter())
        mark_cut(axes, "x")
    grid[0, 0].set_yticks(range(len(labels)), labels)
    grid[0, 0].set_ylim(len(labels) - 0.5, -0.5)
    if not all(begins_at_zero(axes.xaxis) for axes in grid[0]):
        figure.supxlabel(f"({CUT})", fontsize="small")
    _place_legend(grid[0, -1], table)
    return figure


def _draw_panel(axes: Axes, rows: pd.DataFrame, labels: list[str]) -> None:
    """Draw a line from the lowest to the highest encoder of each dictionary, and all on it."""
    for height, label in enumerate(labels):
        mine = rows[rows["label"] == label].set_index("encoder")["value"]
        if mine.empty:
            continue
        axes.hlines(height, mine.min(), mine.max(), color="0.75", linewidth=1.2, zorder=1)
        for encoder, (colour, marker) in LOOKS.items():
            if encoder in mine:
                is_own = encoder == "own"
                axes.plot(
                    mine[encoder],
                    height,
                    marker=marker,
                    linestyle="none",
                    markersize=11 if is_own else 5.5,
                    markerfacecolor="none" if is_own else colour,
                    markeredgecolor=colour,
                    markeredgewidth=1.3 if is_own else 0.6,
                    zorder=2 if is_own else 3,
                )
    axes.margins(x=0.08)
    axes.grid(axis="both", color="0.93")
    axes.set_axisbelow(True)


def _place_legend(axes: Axes, table: pd.DataFrame) -> None:
    """Name the encoders that are drawn, right of the last panel."""
    from matplotlib.lines import Line2D

    from dbksvd.evaluation.encoders.settings import LABELS

    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=marker,
            markersize=10 if encoder == "own" else 6,
            markerfacecolor="none" if encoder == "own" else colour,
            markeredgecolor=colour,
            label=LABELS[encoder],
        )
        for encoder, (colour, marker) in LOOKS.items()
        if encoder in set(table["encoder"])
    ]
    axes.legend(
        handles=handles,
        title="coded by",
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        alignment="left",
    )


def applies(facts: Facts) -> bool:
    """Say whether dictionaries are coded by other encoders than their own."""
    return facts.has_encoders


FIGURE = Figure(
    draw=draw,
    tables=("encoder_scores",),
    applies=applies,
    caption=(
        "The dictionary of each method (a row) coded by several encoders (markers) on the same "
        "held-out samples, at equal L0: k atoms for each sample, or k on average by one threshold "
        "or penalty for all. Distances along a row are what the encoder is worth, distances "
        "between rows at one marker what the dictionary is worth. F1 is of latents as detectors "
        "of the true features, where they are known. Unseen pairs: on samples with two features "
        "that no training sample holds together."
    ),
)
