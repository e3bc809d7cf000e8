"""One number that stands for an eval in tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Headline:
    """One number that stands for an eval in tables and figures.

    Parameters
    ----------
    title : str
        Header of the column.
    evaluation, metric : str
        Where it stands in ``scores.csv``.
    decimals : int
        Decimals in tables.
    unit : float
        What the number is divided by.
    in_overview : bool
        Whether it has a panel in the figure of all evals.
    baseline : str, optional
        Metric of the same eval that is reached without a dictionary.
    lower_is_better : bool
        Whether less is better.
    floor : float, optional
        Where an axis begins at the lowest; only a control can lie below.
    """

    title: str
    evaluation: str
    metric: str
    decimals: int = 3
    unit: float = 1.0
    in_overview: bool = True
    baseline: str | None = None
    lower_is_better: bool = False
    floor: float | None = None

    def select(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of this number, as they are in ``scores.csv``."""
        return scores[(scores["eval"] == self.evaluation) & (scores["metric"] == self.metric)]
