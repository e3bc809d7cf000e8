"""How well dictionaries find the correlations among true features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """RV coefficient of the recovered correlations, and variance explained, of each method.

    The marker is the mean over seeds, the bar reaches from the lowest to the highest seed.
    """
    import matplotlib.pyplot as plt

    from dbksvd.report.figures.dots import draw_range
    from dbksvd.report.figures.floors import draw_floor, find_floor
    from dbksvd.report.figures.ground_truth import join_metrics
    from dbksvd.report.figures.panels import keep_shared_size

    names = {
        "rv_modified": "Modified RV coefficient of the\ncorrelations among codes",
        "mcc": "MCC of atoms and\ntrue features",
        "explained_variance": "Variance explained on\nheld-out samples",
    }
    table = join_metrics(tables["scores"], list(names), styles)
    table, size = keep_shared_size(table, styles)
    figure, panels = plt.subplots(
        1, 3, figsize=(10.5, 1.4 + 0.45 * len(styles.among(table))), sharey=True
    )
    figure.set_layout_engine("constrained")
    labels = styles.among(table)
    for axes, (metric, title) in zip(panels, names.items(), strict=True):
        for height, label in enumerate(labels):
            values = table.loc[table["label"] == label, metric]
            draw_range(axes, values, height, label, styles)
        axes.set(xlabel=title, xlim=(0, 1))
        draw_floor(axes, find_floor(table, table["site"].iloc[0], styles, metric), "x")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        axes.tick_params(left=axes is panels[0])
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    figure.suptitle(size, fontsize="medium")
    return figure


def applies(facts: Facts) -> bool:
    """Say whether the true features are correlated in blocks."""
    return facts.ground_truth == "block_correlated"


FIGURE = Figure(
    draw=draw,
    tables=("scores",),
    applies=applies,
    caption=(
        "Features fire together in blocks of a known covariance. Left: RV coefficient without "
        "diagonals of the correlations among recovered codes and among true codes, after matching "
        "atoms to features. Middle: MCC. Right: variance explained. Markers are means over seeds, "
        "bars reach from the lowest to the highest seed."
    ),
)
