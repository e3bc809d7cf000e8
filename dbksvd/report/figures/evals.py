"""The headline number of every eval that was run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.base.headline import Headline
    from dbksvd.report.figures.styles import Styles

COLUMNS = 5  # panels side by side, at most


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Headline metric of every eval that was run, a panel each: mean and range over seeds.

    Where an eval has one, a dashed line is a probe on all raw activations.
    """
    import matplotlib.pyplot as plt

    from dbksvd.report.figures.panels import keep_shared_size, list_sites
    from dbksvd.report.figures.shares import CUT, begins_at_zero, mark_cut
    from dbksvd.report.headlines import list_headlines

    scores = styles.present(tables["scores"])
    whole, title = keep_shared_size(scores, styles)
    kept = whole[whole["site"].isin(list_sites(scores))]
    panels = [
        (site, headline, rows)
        for site in list_sites(kept)
        for headline in list_headlines()
        if headline.in_overview and not (rows := headline.select(kept[kept["site"] == site])).empty
    ]
    if not panels:
        raise ValueError("scores: expected rows of an eval, got none")
    labels = styles.among(kept)
    n_rows = -(-len(panels) // COLUMNS)
    n_columns = -(-len(panels) // n_rows)  # so that rows are full
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(2.2 + 2.6 * n_columns, n_rows * (1.2 + 0.27 * len(labels))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    several = len({site for site, *_ in panels}) > 1
    for axes, (site, headline, rows) in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, headline, rows, labels, styles)
        _draw_floor(axes, headline, whole, site, styles)
        if several:
            axes.set_title(site, fontsize="medium")
        _draw_baseline(axes, headline, scores[scores["site"] == site])
    grid[0, 0].set_yticks(range(len(labels)), labels)
    grid[0, 0].set_ylim(len(labels) - 0.5, -0.5)
    drawn = list(grid.flat[: len(panels)])
    for axes in drawn:
        mark_cut(axes, "x")
    is_cut = not all(begins_at_zero(axes.xaxis) for axes in drawn)
    figure.suptitle(f"{title} (an {CUT})" if is_cut else title, fontsize="medium")
    return figure


def _draw_panel(
    axes: Axes, headline: Headline, rows: pd.DataFrame, labels: list[str], styles: Styles
) -> None:
    """Draw one metric: a marker at the mean of each method's seeds, a bar over their range."""
    from matplotlib.ticker import MaxNLocator

    from dbksvd.report.figures.dots import draw_range

    for height, label in enumerate(labels):
        values = rows.loc[rows["label"] == label, "value"] / headline.unit
        if len(values):
            draw_range(axes, values, height, label, styles)
    direction = "\n(lower is better)" if headline.lower_is_better else ""
    axes.set_xlabel(f"{headline.title}{direction}")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.margins(x=0.12)
    if headline.floor is not None:
        axes.set_xlim(left=max(axes.get_xlim()[0], headline.floor))
    axes.grid(axis="both", color="0.92")
    axes.set_axisbelow(True)


def _draw_floor(
    axes: Axes, headline: Headline, table: pd.DataFrame, site: str, styles: Styles
) -> None:
    """Draw the line of the best of what learns nothing."""
    from dbksvd.report.figures.floors import draw_floor, find_floor

    rows = headline.select(table)
    rows = rows.assign(value=rows["value"] / headline.unit)
    lower = headline.lower_is_better
    draw_floor(axes, find_floor(rows, site, styles, "value", lower_is_better=lower), "x")


def _draw_baseline(axes: Axes, headline: Headline, scores: pd.DataFrame) -> None:
    """Draw the line of what is reached without a dictionary, where the eval measures it."""
    if headline.baseline is None:
        return
    is_baseline = scores["metric"] == headline.baseline
    values = scores.loc[(scores["eval"] == headline.evaluation) & is_baseline, "value"]
    if len(values):
        axes.axvline(values.mean(), color="0.2", linewidth=1.2, linestyle="--", zorder=0)
        axes.margins(x=0.12)  # the line counts too


def applies(facts: Facts) -> bool:
    """Say whether any eval of SAEBench is run."""
    return bool(facts.evals)


FIGURE = Figure(
    draw=draw,
    tables=("scores",),
    applies=applies,
    caption=(
        "The headline number of each eval. Markers are means over seeds, bars reach from the "
        "lowest to the highest seed, controls are grey. Black dashed line: the same probe on all "
        "raw activations. Grey dashed line: the floor, the best of the controls that learn nothing "
        "of the data, which a score must beat to mean something. A permuted decoder keeps the "
        "latents of its SAE, so probes on latents score as that SAE does; an eval that uses the "
        "decoder should tell them apart (it explains less than nothing, left of the axis). Where "
        "TPP and SCR are among the evals, they are shown because SAEBench has them: a reliability "
        "audit (arXiv 2605.18229) finds both unreliable."
    ),
)
