"""Cross-entropy loss that a dictionary inside the language model recovers, against L0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Cross-entropy loss recovered against L0, a line for each method.

    Seeds give the spread: the marker is their mean, the bar from the least to the greatest.
    """
    from dbksvd.report.figures.against_l0 import draw_against_l0

    title = "Cross-entropy loss recovered"
    return draw_against_l0(tables, styles, "core", "ce_loss_score", title)


def applies(facts: Facts) -> bool:
    """Say whether core computes the loss."""
    return facts.has_loss


FIGURE = Figure(
    draw=draw,
    tables=("scores", "published"),
    applies=applies,
    caption=(
        "Share of the language model's loss that stays when a dictionary's reconstruction takes "
        "the place of the activations (1: as the model itself; 0: as with zeros), against the mean "
        "number of non-zero coefficients. Up and left is better. Markers are means over seeds, "
        "bars reach from the lowest to the highest seed. Hollow black markers are numbers that "
        "others have published for this model and layer (``results/reference/``), at their nominal "
        "k; their training data and settings differ."
    ),
)
