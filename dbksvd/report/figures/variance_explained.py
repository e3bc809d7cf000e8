"""Held-out variance explained against L0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Held-out variance explained against L0, a line for each method.

    Seeds give the spread: the marker is their mean, the bar from the least to the greatest.
    """
    from dbksvd.report.figures.against_l0 import draw_against_l0

    title = "Variance explained on held-out tokens"
    return draw_against_l0(tables, styles, "heldout", "explained_variance", title)


FIGURE = Figure(
    draw=draw,
    tables=("scores", "published"),
    caption=(
        "Share of the variance of held-out tokens that a dictionary explains, against the mean "
        "number of non-zero coefficients it takes. Up and left is better. Markers are means over "
        "seeds, bars reach from the lowest to the highest seed. A permuted decoder explains less "
        "than nothing and lies below the axis. The dashed grey line is the floor at its k: the "
        "best of the controls that learn nothing of the data."
    ),
)
