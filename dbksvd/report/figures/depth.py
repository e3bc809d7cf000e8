"""Variance explained, L0 and unused atoms over the depth of the model, for each place in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles

METRICS = {
    "explained_variance": "variance explained",
    "l0": "L0",
    "dead_fraction": "atoms that no token uses",
}
# What rows of panels are called; places of one's own keep their names.
PLACES = {
    "residual": "residual stream",
    "residual_before": "residual stream before the block",
    "attention": "attention output",
    "mlp": "MLP output",
    "mlp_input": "MLP input",
    "mlp_pair": "MLP output from MLP input",
}


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Draw a row of panels for each place, a line over layers for each method."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    from dbksvd.report.figures.panels import label_shares, place_legend

    table, title = _join(tables["scores"], styles)
    places = list(dict.fromkeys(table["place"]))
    figure, panels = plt.subplots(
        len(places), len(METRICS), figsize=(11.5, 0.6 + 2.9 * len(places)), squeeze=False,
        sharex=True, sharey="col", layout="constrained",
    )  # fmt: skip
    for row, place in zip(panels, places, strict=True):
        here = table[table["place"] == place]
        for axes, (metric, name) in zip(row, METRICS.items(), strict=True):
            for label in styles.among(here):
                _draw_line(axes, here[here["label"] == label], metric, label, styles)
            axes.set(xlabel="layer" if place == places[-1] else "", ylabel=name)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        row[0].set_title(PLACES.get(place, place), fontsize="medium", loc="left")
    for axes, metric in zip(panels[0], METRICS, strict=True):
        if metric == "l0":
            axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        else:
            label_shares(axes)
    figure.suptitle(title, fontsize="medium")
    place_legend(figure)
    return figure


def _join(scores: pd.DataFrame, styles: Styles) -> tuple[pd.DataFrame, str]:
    """Return a row for each dictionary of the size that most share, and that size in words."""
    from dbksvd.base.layout import KEYS
    from dbksvd.base.site import Site
    from dbksvd.report.figures.panels import keep_shared_size, pick_metric

    parsed = {name: Site.parse(name) for name in scores["site"].unique()}
    trained = [name for name, site in parsed.items() if site.is_layer and not site.is_random]
    scores = scores[scores["site"].isin(trained)]
    first, *others = METRICS
    table = pick_metric(scores, "heldout", first)
    for metric in others:
        table = table.merge(pick_metric(scores, "heldout", metric), on=list(KEYS))
    table = table.assign(
        layer=[parsed[name].layer for name in table["site"]],
        place=[parsed[name].place for name in table["site"]],
    )
    return keep_shared_size(styles.present(table), styles)


def _draw_line(axes: Axes, rows: pd.DataFrame, metric: str, label: str, styles: Styles) -> None:
    """Draw a method: a line through the means over seeds of each layer."""
    means = rows.groupby("layer")[metric].mean().sort_index()
    axes.plot(
        means.index, means, color=styles.palette[label], marker=styles.markers[label],
        markersize=5, linewidth=1.4, label=label,
    )  # fmt: skip


def applies(facts: Facts) -> bool:
    """Say whether dictionaries are fitted at several layers."""
    return facts.layers > 1


FIGURE = Figure(
    draw=draw,
    tables=("scores",),
    applies=applies,
    caption=(
        "Held-out variance explained, non-zeros per token and the share of atoms that no held-out "
        "token uses, over the layers of the model, in a row for each place: the residual stream, "
        "or what a block's attention or MLP adds to it; transcoders make the latter from what the "
        "MLP reads. Lines are means over seeds, at the size that most fits share. Dictionaries of "
        "attention outputs often leave most of their atoms unused: the explained variance of a "
        "place does not tell, the third column does."
    ),
)
