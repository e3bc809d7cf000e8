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

    from dbksvd.report.figures.floors import draw_floor, find_floor
    from dbksvd.report.figures.panels import (
        keep_shared_size,
        label_powers,
        label_shares,
        make_panels,
        name_hidden,
        pick_metric,
        place_legend,
    )
    from dbksvd.report.figures.shares import mark_cut, name_cut

    scores = tables["scores"]
    table = pick_metric(scores, "heldout", "explained_variance").merge(
        pick_metric(scores, "fit", "encoder_flops"), on=list(KEYS)
    )
    shared, _ = keep_shared_size(styles.present(table), styles)
    figure, panels = make_panels(styles.present(table))
    for axes, rows in panels:
        sns.lineplot(
            rows.assign(fit=rows["n_atoms"].astype(str) + "-" + rows["seed"].astype(str)),
            x="encoder_flops",
            y="explained_variance",
            hue="label",
            hue_order=styles.among(rows),
            palette=styles.palette,
            style="label",
            markers=styles.markers,
            dashes=False,
            units="fit",
            estimator=None,
            markersize=7,
            linewidth=1.2 if rows["k"].nunique() > 1 else 0,
            ax=axes,
        )
        axes.set(xlabel="Encoding cost (floating-point operations per token)", xscale="log")
        label_powers(axes)
        label_shares(axes)
        draw_floor(axes, find_floor(shared, rows["site"].iloc[0], styles, "explained_variance"))
        mark_cut(axes)
    title = "Variance explained on held-out tokens"
    figure.axes[0].set_ylabel(name_cut(title, figure.axes[0].yaxis))
    place_legend(figure, name_hidden(styles.present(table), "explained_variance"))
    return figure


FIGURE = Figure(
    draw=draw,
    tables=("scores",),
    caption=(
        "Share of the variance of held-out tokens that a dictionary explains, against the "
        "floating-point operations of encoding one token (two for each multiply-add, decoder and "
        "comparisons not counted; the formulas are in ``dbksvd/dictionaries/encoder_flops.py``). "
        "Up and left is better. A line joins the k of one method. The dashed grey line is the best "
        "of the controls that learn nothing of the data, at the k that most fits share."
    ),
)
