"""How evenly atoms are used: how many atoms what share of the tokens uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Histogram of how many held-out tokens use an atom; unused atoms in a bin of their own."""
    from dbksvd.report.figures.panels import find_shared_size, list_sites, make_panels

    usage = styles.present(tables["usage"])
    usage = usage[~usage["method"].isin(styles.controls)]
    usage = usage[usage["site"].isin(list_sites(usage))]
    n_atoms, k = find_shared_size(usage)
    usage = usage[(usage["n_atoms"] == n_atoms) & (usage["k"] == k)]
    usage = usage[usage["seed"] == usage["seed"].min()]
    figure, panels = make_panels(usage)
    for axes, rows in panels:
        _draw_usage(axes, rows, styles)
        axes.axvline(k / n_atoms, color="0.5", linewidth=1, linestyle=":")
        axes.annotate(
            "all equal",
            (k / n_atoms, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -3),
            textcoords="offset points",
            va="top",
            fontsize="small",
            color="0.4",
        )
        axes.set(
            xscale="log",
            xlabel="Share of held-out tokens that use the atom\n(leftmost bin: no token)",
        )
        # The number of unused atoms is the panel's own.
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.axes[0].set_ylabel("Atoms")
    figure.suptitle(f"{n_atoms} atoms, k = {k}", fontsize="medium")
    return figure


def _draw_usage(axes: Axes, usage: pd.DataFrame, styles: Styles) -> None:
    """Draw the histogram of each method at one site."""
    import numpy as np

    lowest = 1 / usage["tokens"].max()
    edges = np.geomspace(lowest / 2, 1, 41)
    for label in styles.among(usage):
        rows = usage[usage["label"] == label]
        share = (rows["count"] / rows["tokens"]).clip(lower=lowest / 1.9)
        unused = int((rows["count"] == 0).sum())
        axes.hist(
            share,
            bins=edges.tolist(),
            histtype="step",
            linewidth=1.6,
            color=styles.palette[label],
            label=f"{label} ({unused} unused)",
        )


FIGURE = Figure(
    draw=draw,
    tables=("usage",),
    caption=(
        "How many atoms are used by what share of held-out tokens. A mass at the left is atoms "
        "that are (nearly) never used; the dotted line is where all would be if every atom were "
        "used equally."
    ),
)
