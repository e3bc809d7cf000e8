"""Bits a token against the variance that they explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Variance explained against description length, a line over k for each method and width."""
    from dbksvd.base.layout import KEYS
    from dbksvd.report.figures.panels import (
        list_sites,
        make_panels,
        name_hidden,
        pick_metric,
        place_legend,
    )
    from dbksvd.report.figures.shares import ShareFormatter

    scores = tables["scores"]
    table = pick_metric(scores, "heldout", "description_length").merge(
        pick_metric(scores, "heldout", "description_variance"), on=list(KEYS)
    )
    table = styles.present(table)
    figure, panels = make_panels(table[table["site"].isin(list_sites(table))])
    for axes, rows in panels:
        for label in styles.among(rows):
            _draw_line(axes, rows[rows["label"] == label], label, styles)
        axes.set_xlabel("Description length, bits a token")
        axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
        axes.yaxis.set_major_formatter(ShareFormatter())
    figure.axes[0].set_ylabel("Variance explained by the rounded codes")
    place_legend(figure, name_hidden(table, "description_variance"))
    return figure


def _draw_line(axes: Axes, rows: pd.DataFrame, label: str, styles: Styles) -> None:
    from dbksvd.report.figures.against_l0 import LINES

    columns = ["description_length", "description_variance"]
    several = rows["n_atoms"].nunique() > 1
    for place, (n_atoms, group) in enumerate(rows.groupby("n_atoms")):
        means = group.groupby("k")[columns].mean()
        axes.plot(
            means["description_length"],
            means["description_variance"],
            LINES[place % len(LINES)],
            color=styles.palette[label],
            marker=styles.markers[label],
            markerfacecolor=styles.palette[label] if place == 0 else "white",
            label=f"{label}, {n_atoms} atoms" if several else label,
        )


FIGURE = Figure(
    draw=draw,
    tables=("scores",),
    caption=(
        "Variance that rounded codes explain against the bits that they take: the entropy of which "
        "atoms fire, that of the bins of their coefficients, and a sign bit where codes are "
        "signed, with the fewest equal bins for which the variance explained falls by at most half "
        "a percentage point (after Ayonrinde et al. 2024). Up and left is better. The dictionary "
        "itself is not counted."
    ),
)
