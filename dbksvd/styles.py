"""How a method looks: one colour, marker and label, the same in every figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import seaborn as sns

# One more than there are colours: where colours repeat, colour and marker together do not.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
CONTROL_COLOURS = ("0.25", "0.38", "0.50", "0.62", "0.73", "0.83")


@dataclass(frozen=True)
class Styles:
    """One colour, marker and label for each method, the same in every figure.

    Parameters
    ----------
    methods : sequence of str
        Methods in the order of the config, which decides colours and the order in legends.
    labels : dict of str
        How a method is written, for those that differ from their name.
    controls : sequence of str
        Methods drawn in grey.
    """

    methods: Sequence[str]
    labels: dict[str, str]
    controls: Sequence[str] = ()

    def label(self, method: str) -> str:
        """Return how a method is written."""
        return self.labels.get(method, method)

    @property
    def order(self) -> list[str]:
        """Labels in the order of the legend."""
        return [self.label(method) for method in self.methods]

    @property
    def palette(self) -> dict[str, Any]:
        """Colour of each label, distinguishable by colour-blind readers (seaborn's palette)."""
        learned = [method for method in self.methods if method not in self.controls]
        colours = dict(zip(learned, sns.color_palette("colorblind", len(learned)), strict=True))
        greys = [CONTROL_COLOURS[i % len(CONTROL_COLOURS)] for i in range(len(self.controls))]
        colours |= dict(zip(self.controls, greys, strict=True))
        return {self.label(method): colours[method] for method in self.methods}

    @property
    def markers(self) -> dict[str, str]:
        """Marker of each label."""
        return {
            self.label(method): MARKERS[position % len(MARKERS)]
            for position, method in enumerate(self.methods)
        }

    def present(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return `table` with a column ``label``, rows in the order of the methods."""
        table = table[table["method"].isin(self.methods)].copy()
        table["label"] = table["method"].map(self.label)
        rank = {method: position for position, method in enumerate(self.methods)}
        return table.sort_values("method", key=lambda column: column.map(rank), kind="stable")

    def among(self, table: pd.DataFrame) -> list[str]:
        """Return the labels that occur in `table`, in order."""
        return [label for label in self.order if label in set(table["label"])]
