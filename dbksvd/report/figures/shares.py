"""Axes of shares: ticks in percent that differ, and marks where an axis does not begin at 0."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import Formatter
from typing_extensions import override

# Most decimals of a percentage; ticks nearer together than that have other trouble.
MOST_DECIMALS = 8
# Part of the distance of two ticks that rounding may take from a label.
TOLERANCE = 0.01
# What a label says of its axis where that is cut.
CUT = "axis cut by // does not begin at 0"
CUT_ID = "cut axis"


class ShareFormatter(Formatter):
    """Percentages with as many decimals as the ticks need: 70%, 99.95%."""

    def __init__(self) -> None:
        self.decimals = 0

    @override
    def set_locs(self, locs: Any) -> None:
        self.decimals = count_decimals(locs)

    @override
    def __call__(self, x: float, pos: int | None = None) -> str:
        text = f"{100 * x:.{self.decimals}f}"
        return f"{0:.{self.decimals}f}%" if float(text) == 0 else f"{text}%"


def count_decimals(ticks: Iterable[float]) -> int:
    """Return the decimals of percentages with which ticks at these shares are told apart."""
    values = 100 * np.unique(np.asarray(list(ticks), float))
    if len(values) < 2:
        return 0
    step = np.diff(values).min()
    for decimals in range(MOST_DECIMALS):
        if np.abs(values.round(decimals) - values).max() <= TOLERANCE * step:
            return decimals
    return MOST_DECIMALS


def begins_at_zero(axis: Axis) -> bool:
    """Return whether 0 is on an axis, or it is logarithmic and so cannot have it."""
    low, high = sorted(axis.get_view_interval())
    return axis.get_scale() != "linear" or low <= 0 <= high


def mark_cut(axes: Axes, which: str = "y") -> None:
    """Put two strokes across the beginning of the x or y axis, if the axis does not begin at 0."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    if begins_at_zero(axis):
        return
    is_y = which == "y"
    x, y = (0.0, 0.02) if is_y else (0.02, 0.0)
    axes.text(
        x,
        y,
        "//",
        rotation=90 if is_y else 0,
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize="small",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0},
        gid=CUT_ID,
    )


def name_cut(label: str, axis: Axis) -> str:
    """Return the label of an axis; where the axis does not begin at 0, the label says so."""
    return label if begins_at_zero(axis) else f"{label}\n({CUT})"
