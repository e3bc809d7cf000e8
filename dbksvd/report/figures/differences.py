"""On which scores one method differs from each of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles

COLUMNS = 5  # panels side by side, at most
GREY = "0.62"


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Draw a panel for each score, a row for each method: what the reference has more.

    Methods are drawn in their colour where they are told apart, else hollow and grey.
    """
    import matplotlib.pyplot as plt

    panels = _list_panels(tables["differences"])
    if not panels:
        return _draw_nothing()
    shown = styles.present(tables["differences"])
    methods = styles.among(shown[shown["method"].isin(set().union(*(p["method"] for p in panels)))])
    n_rows = -(-len(panels) // COLUMNS)
    n_columns = -(-len(panels) // n_rows)
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(2.4 + 2.5 * n_columns, n_rows * (1.3 + 0.29 * len(methods)) + 0.5),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    sites = {panel["site"].iloc[0] for panel in panels}
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, styles.present(panel), methods, styles)
        where = f"\n{panel['site'].iloc[0]}" if len(sites) > 1 else ""
        axes.set_title(f"{panel['score'].iloc[0]}{where}", fontsize="medium")
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.5, -0.5)
    reference = styles.label(panels[0]["reference"].iloc[0])
    n_atoms, k = panels[0][["n_atoms", "k"]].iloc[0]
    figure.suptitle(
        f"{reference} minus each other method ({n_atoms} atoms, k = {k}); grey: not told apart",
        fontsize="medium",
    )
    return figure


def _draw_nothing() -> Drawing:
    """Return a figure that says why there is none: one seed, and no parts of any score."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 1.2))
    axes.set_axis_off()
    text = "No two methods are compared: nothing says how noisy a score is (one seed, no parts)."
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
    return figure


def _list_panels(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each score of each site, at the size of the site with most methods."""
    from dbksvd.report.differences import UNKNOWN

    if "verdict" not in table:
        return []
    table = table[table["verdict"] != UNKNOWN]
    panels = []
    for site in sorted(table["site"].unique(), key=lambda name: (name == "synthetic", len(name))):
        rows = table[table["site"] == site]
        # of sizes with as many methods, the one with most seeds
        methods = rows.groupby(["n_atoms", "k"])["method"].nunique()
        n_atoms, k = methods.idxmax()
        here = rows[(rows["n_atoms"] == n_atoms) & (rows["k"] == k)]
        panels += [group for _, group in here.groupby("score", sort=False)]
    return panels


def _draw_panel(axes: Axes, rows: pd.DataFrame, methods: list[str], styles: Styles) -> None:
    """Draw one score: a marker at the difference from each method, a bar over its interval."""
    from matplotlib.ticker import MaxNLocator

    from dbksvd.report.differences import SAME

    axes.axvline(0, color="0.2", linewidth=1.0, zorder=1)
    for label, difference, low, high, verdict in rows[
        ["label", "difference", "low", "high", "verdict"]
    ].itertuples(index=False):
        is_same = verdict == SAME
        axes.errorbar(
            difference,
            methods.index(label),
            xerr=[[difference - low], [high - difference]],
            color=GREY if is_same else styles.palette[label],
            markerfacecolor="white" if is_same else None,
            marker=styles.markers[label],
            markersize=6,
            capsize=3,
            linewidth=1.6,
        )
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.margins(x=0.08)
    axes.set_xlabel("difference")
    axes.grid(axis="both", color="0.92")
    axes.set_axisbelow(True)


def applies(facts: Facts) -> bool:
    """Say whether two methods that are no controls share a size."""
    return facts.rivals > 1


FIGURE = Figure(
    draw=draw,
    tables=("differences",),
    applies=applies,
    caption=(
        "The first method of the config minus each other method, a panel for each score: mean over "
        "seeds, with an interval that holds, together with those of all pairs of methods of the "
        "panel, with 95 %. Right of the line the first method scores higher. Where the interval "
        "crosses the line, the two are not told apart, and are drawn grey and hollow. The noise of "
        "seeds counts, and that of data sets, classes or groups of held-out documents where the "
        "score has them (docs/noise.md). Scores that nothing says the noise of have no panel."
    ),
)
