"""Held-out variance explained against what encoding a token costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.base.layout import KEYS
from dbksvd.report.figures.entry import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Held-out variance explained against what encoding a token costs, a line over k."""
    import seaborn as sns

    from dbksvd.report.figures.panels import (
        label_powers,
        label_shares,
        make_panels,
        name_hidden,
        pick_metric,
        place_legend,
    )

    scores = tables["scores"]
    table = pick_metric(scores, "heldout", "explained_variance").merge(
        pick_metric(scores, "fit", "encoder_flops"), on=list(KEYS)
    )
    figure, panels = make_panels(styles.present(table))
    for axes, rows in panels:
        sns.lineplot(
            rows,
            x="encoder_flops",
            y="explained_variance",
            hue="label",
            hue_order=styles.among(rows),
            palette=styles.palette,
            style="label",
            markers=styles.markers,
            dashes=False,
            units="seed",
            estimator=None,
            markersize=7,
            linewidth=1.2,
            ax=axes,
        )
        axes.set(xlabel="Encoding cost (floating-point operations per token)", xscale="log")
        label_powers(axes)
        label_shares(axes)
    figure.axes[0].set_ylabel("Variance explained on held-out tokens")
    place_legend(figure, name_hidden(styles.present(table), "explained_variance"))
    return figure


FIGURE = Figure(
    draw=draw,
    tables=("scores",),
    caption=(
        "Share of the variance of held-out tokens that a dictionary explains, against the "
        "floating-point operations of encoding one token (two for each multiply-add, decoder and "
        "comparisons not counted; the formulas are in ``dbksvd/dictionaries/encoder_flops.py``). "
        "Up and left is better. A line joins the k of one method."
    ),
)
