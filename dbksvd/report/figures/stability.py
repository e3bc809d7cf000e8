"""How far dictionaries agree that differ in their seed only: cosines of matched atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles

LEAST = (0.7, 0.9)  # cosines at which atoms are called shared


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Share of atoms whose partner in another seed has at least a cosine, a line for each method.

    The grey dashed line is that of random atoms. The legend has the mean cosine.
    """
    from dbksvd.report.figures.panels import find_shared_size, list_sites, make_panels
    from dbksvd.report.figures.shares import ShareFormatter

    stability = styles.present(tables["stability"])
    stability = stability[stability["site"].isin(list_sites(stability))]
    n_atoms, k = find_shared_size(stability)
    stability = stability[(stability["n_atoms"] == n_atoms) & (stability["k"] == k)]
    figure, panels = make_panels(stability)
    for axes, rows in panels:
        _draw_shares(axes, rows, styles)
        axes.set(xlabel="Cosine", xlim=(0, 1), ylim=(0, 1.02))
        axes.set_xticks([0.1, 0.3, 0.5, *LEAST])
        axes.yaxis.set_major_formatter(ShareFormatter())
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        for least in LEAST:
            axes.axvline(least, color="0.5", linewidth=1, linestyle=":", zorder=0)
        # The mean cosines are the panel's own.
        axes.legend(
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            title="mean cosine of matched atoms",
            title_fontsize="small",
            alignment="left",
        )
    figure.axes[0].set_ylabel("Atoms whose partner in another seed\nhas at least this cosine")
    figure.suptitle(f"{n_atoms} atoms, k = {k}", fontsize="medium")
    return figure


def _draw_shares(axes: Axes, rows: pd.DataFrame, styles: Styles) -> None:
    """Draw the line of each method at one site, all seeds together, and that of chance."""
    order = {
        label: _average(table, "atoms")
        for label, table in rows.groupby("label", sort=False, observed=True)
    }
    for label in sorted(order, key=lambda label: -order[label]):
        edges, shares = _accumulate(rows[rows["label"] == label], "atoms")
        axes.plot(
            edges,
            shares,
            color=styles.palette[label],
            marker=styles.markers[label],
            markevery=(5, 10),
            markersize=5,
            linewidth=1.8,
            label=f"{label} ({order[label]:.2f})",
        )
    edges, shares = _accumulate(rows, "random_atoms")
    axes.plot(
        edges,
        shares,
        color="0.4",
        linewidth=1.6,
        linestyle="--",
        label=f"random atoms ({_average(rows, 'random_atoms'):.2f})",
    )


def _accumulate(rows: pd.DataFrame, column: str) -> tuple[list[float], list[float]]:
    """Return the lower edges of the bins, with 1, and the share of pairs above each."""
    counts = rows.groupby("cosine")[column].sum().sort_index()
    above = counts[::-1].cumsum()[::-1] / counts.sum()
    return [*counts.index, 1.0], [*above, 0.0]


def _average(rows: pd.DataFrame, column: str) -> float:
    """Return the mean cosine, each taken at the middle of its bin."""
    middle = rows["cosine"] + 0.5 / rows["cosine"].nunique()
    return float((middle * rows[column]).sum() / rows[column].sum())


def applies(facts: Facts) -> bool:
    """Say whether seeds were compared."""
    return facts.has_stability


FIGURE = Figure(
    draw=draw,
    tables=("stability",),
    applies=applies,
    caption=(
        "How far dictionaries agree that differ in their seed only. The atoms of two seeds are "
        "paired one to one with the largest sum of cosines (of absolute cosines where codes have "
        "signs); a line says which share of them has a partner of at least the cosine below, over "
        "all pairs of seeds. Further right is more stable. In brackets the mean cosine (PW-MCC). "
        "Dashed: random atoms, paired likewise. Dotted: .7 and .9, where atoms are called shared."
    ),
)
