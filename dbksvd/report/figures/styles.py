"""How a method looks: one colour, marker and label, the same in every figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pandas as pd

# Eleven colours that stay apart for readers without red or green cones too, and from the greys; the
# first, in the order of LEARNED, are those of the methods that are compared most.
COLOURS = (
    *("#006aaa", "#d45500", "#2a2aaa", "#004015", "#8000ff"),
    *("#ffaaea", "#40ea95", "#ff55ff", "#d4d400", "#bf6a55"),
    "#550055",
)
# One more than there are colours: where colours repeat, colour and marker together do not.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "p")
CONTROL_COLOURS = (
    *("0.25", "0.38", "0.50", "0.62", "0.73", "0.83"),
    *("0.31", "0.44", "0.56", "0.68"),
)
# Names that look the same in every experiment; others take the places that these leave free.
LEARNED = (
    *("dbksvd-signed", "dbksvd", "dbksvd-matryoshka", "topk-sae", "matryoshka-sae"),
    *("switch-sae", "kron-sae", "batchtopk-sae", "grown", "dbksvd-mean"),
    *("abstopk-sae", "standard-sae", "gated-sae", "mp-sae", "polished-sae", "ksvd"),
    "jumprelu-sae",
)
CONTROLS = (
    *("random", "identity", "pca", "kmeans", "itda", "permuted-topk"),
    *("topk-soft-frozen", "true-features", "topk-frozen", "topk-frozen-encoder"),
)
FIRST_CONTROL_MARKER = 7


@dataclass(frozen=True)
class Styles:
    """One colour, marker and label for each method, the same in every figure.

    Parameters
    ----------
    methods : sequence of str
        Methods in the order of the config and of the legends.
    labels : dict of str
        How a method is written, for those that differ from their name.
    controls : sequence of str
        Methods drawn in grey.
    floors : sequence of str
        Those of them that a score must beat to mean something.

    Raises
    ------
    ValueError
        If two methods are written alike, which would make one of them in every figure.
    """

    methods: Sequence[str]
    labels: dict[str, str]
    controls: Sequence[str] = ()
    floors: Sequence[str] = ()

    def __post_init__(self) -> None:
        owners: dict[str, str] = {}
        for method in self.methods:
            other = owners.setdefault(self.label(method), method)
            if other != method:
                raise ValueError(
                    f"labels: expected another label for each method, got "
                    f"{self.label(method)!r} for {other} and {method}"
                )

    def label(self, method: str) -> str:
        """Return how a method is written."""
        return self.labels.get(method, method)

    @property
    def order(self) -> list[str]:
        """Labels in the order of the legend."""
        return [self.label(method) for method in self.methods]

    @property
    def palette(self) -> dict[str, Any]:
        """Colour of each label, distinguishable by colour-blind readers."""
        found: dict[str, Any] = {
            name: COLOURS[place % len(COLOURS)] for name, place in self._learned.items()
        }
        for name, place in self._greys.items():
            found[name] = CONTROL_COLOURS[place % len(CONTROL_COLOURS)]
        return {self.label(method): found[method] for method in self.methods}

    @property
    def markers(self) -> dict[str, str]:
        """Marker of each label."""
        places = dict(self._learned)
        places |= {name: FIRST_CONTROL_MARKER + place for name, place in self._greys.items()}
        return {
            self.label(method): MARKERS[places[method] % len(MARKERS)] for method in self.methods
        }

    @property
    def _learned(self) -> dict[str, int]:
        return _find_places([name for name in self.methods if name not in self.controls], LEARNED)

    @property
    def _greys(self) -> dict[str, int]:
        return _find_places(self.controls, CONTROLS)

    def present(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return `table` with a column ``label``, rows in the order of the methods."""
        table = table[table["method"].isin(self.methods)].copy()
        table["label"] = table["method"].map(self.label)
        rank = {method: position for position, method in enumerate(self.methods)}
        return table.sort_values("method", key=lambda column: column.map(rank), kind="stable")

    def among(self, table: pd.DataFrame) -> list[str]:
        """Return the labels that occur in `table`, in order."""
        return [label for label in self.order if label in set(table["label"])]


def _find_places(names: Sequence[str], known: Sequence[str]) -> dict[str, int]:
    """Return a place for each name: its own among the known ones, else the first that is free."""
    places = {name: known.index(name) for name in names if name in known}
    free = (place for place in count() if place not in places.values())
    return places | {name: next(free) for name in names if name not in known}
