"""The floor of a score: the best of what learns nothing, a line that a method must be beyond."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.axes import Axes

from dbksvd.base.site import Site
from dbksvd.report.figures.styles import Styles

COLOUR = "0.55"
RANDOM_MODEL = "random weights"
# Part of an axis that a label keeps from its ends.
EDGE = 0.02


@dataclass(frozen=True)
class Floor:
    """The best score of a control that learns nothing of the data, or of a random model.

    Parameters
    ----------
    value : float
        The score, mean over seeds.
    name : str
        Whose it is, as the label of the line says.
    """

    value: float
    name: str

    @property
    def short(self) -> str:
        """A label where the method is named elsewhere: a row or a bar of its own."""
        return f"floor, {RANDOM_MODEL}" if self.name.endswith(RANDOM_MODEL) else "floor"


def find_floor(
    table: pd.DataFrame, site: str, styles: Styles, metric: str, *, lower_is_better: bool = False
) -> Floor | None:
    """Return the floor of a metric at a site; None where nothing there is one.

    Candidates are the methods of ``styles.floors`` at the site, and every other method fitted to
    the same layer of the model with its weights drawn anew.

    Parameters
    ----------
    table : DataFrame
        Rows of one k, of all sites, with ``site``, ``method``, ``n_atoms``, ``label`` and the
        metric.
    site : str
        Such as ``layer4``.
    styles : Styles
        Which methods are floors.
    metric : str
        Column of the score.
    lower_is_better : bool
        Whether the best score is the lowest.
    """
    here = table[(table["site"] == site) & table["method"].isin(styles.floors)]
    parsed = Site.parse(site)
    twin = str(replace(parsed, kind="random_layer")) if parsed.is_layer else None
    drawn = table[(table["site"] == twin) & ~table["method"].isin(styles.floors)]
    found = [
        Floor(float(values.mean()), name)
        for rows, ending in ((here, ""), (drawn, f", {RANDOM_MODEL}"))
        for (label, _), values in rows.groupby(["label", "n_atoms"])[metric]
        for name in [f"{label}{ending}"]
        if len(values)
    ]
    if not found:
        return None
    sign = -1 if lower_is_better else 1
    return max(found, key=lambda floor: sign * floor.value)


def draw_floor(axes: Axes, floor: Floor | None, which: str = "y", *, label: bool = True) -> None:
    """Draw a thin grey line at a floor on the y or x axis, with its label.

    On a y axis the label stands on the line, on an x axis above it. Nothing is drawn outside of the
    axis, whose limits stay.
    """
    if floor is None:
        return
    low, high = sorted((axes.yaxis if which == "y" else axes.xaxis).get_view_interval())
    if not low <= floor.value <= high:
        return
    line = axes.axhline if which == "y" else axes.axvline
    line(floor.value, color=COLOUR, linewidth=0.9, linestyle=(0, (4, 2)), zorder=0.5, gid="floor")
    axes.set(**{f"{which}lim": (low, high)})
    if not label:
        return
    is_y = which == "y"
    axes.annotate(
        f"floor: {floor.name}" if is_y else floor.short,
        (EDGE, floor.value) if is_y else (floor.value, 1),
        xycoords=("axes fraction", "data") if is_y else ("data", "axes fraction"),
        xytext=(2, 2) if is_y else (0, 1),
        textcoords="offset points",
        ha="left" if is_y else "center",
        va="bottom",
        color="0.4",
        fontsize="x-small",
        zorder=5,
    )
