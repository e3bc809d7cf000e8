"""One number that stands for an eval in tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Between a metric and one of its parts in ``scores.csv``: ``sae_top_1_test_accuracy@96_spam_is``.
PART = "@"


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
    is_compared : bool
        Whether it ranks methods by a mean over seeds, so that tables can say which methods it tells
        apart. False for what is no merit (L0), for costs, and where the rows of the seeds depend on
        one another (agreement of each seed with the others).
    warning : str
        Why the number is not to be trusted, told below tables that show it.
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
    is_compared: bool = True
    warning: str = ""

    def select(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of this number, as they are in ``scores.csv``."""
        return scores[(scores["eval"] == self.evaluation) & (scores["metric"] == self.metric)]

    def select_parts(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of its parts, whose mean it is, with their names in a column ``part``."""
        start = f"{self.metric}{PART}"
        rows = scores[(scores["eval"] == self.evaluation) & scores["metric"].str.startswith(start)]
        return rows.assign(part=rows["metric"].str.removeprefix(start))
