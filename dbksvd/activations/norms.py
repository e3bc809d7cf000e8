"""Rows whose norm is many times the median: attention sinks, massive activations.

A causal language model writes very large activations at a few positions: the first one of a text,
and in some models periods or line breaks (Xiao et al. 2024; Sun et al. 2024). A few such rows hold
nearly all variance.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dbksvd.activations.hdf5 import RowBlock
from dbksvd.activations.moments import Moments
from dbksvd.activations.row_kernels import find_norms, widen
from dbksvd.base.files import read_json

NORM_MULTIPLE = 10.0
"""Multiple of the median norm over which a row counts as an outlier."""
NORM_LIMIT_FILE = "norm_limit.json"
MOST_LISTED = 10  # positions and tokens in a manifest


def measure_norms(rows: np.ndarray) -> np.ndarray:
    """Return the norm of each row (n, d), float64 of shape (n,)."""
    norms: np.ndarray = find_norms(widen(rows))
    return norms


def read_norm_limit(path: str | Path) -> float | None:
    """Return the largest norm that fits see, from `NORM_LIMIT_FILE` of a folder of shards."""
    limit = read_json(Path(path))["limit"]
    return None if limit is None else float(limit)


@dataclass(frozen=True)
class NormLimit:
    """Which rows are left out for their norm.

    Parameters
    ----------
    median : float
        Median norm of the training rows.
    multiple : float or None
        Rows over this multiple of the median are left out; None keeps all.
    """

    median: float
    multiple: float | None

    @classmethod
    def choose(
        cls, setting: float | Literal["auto"] | None, model_kind: str | None, norms: np.ndarray
    ) -> NormLimit:
        """Return the limit that a setting means.

        Parameters
        ----------
        setting : number, "auto" or None
            ``shards.outlier_norm_multiple``; ``"auto"`` is `NORM_MULTIPLE` for a causal model, and
            keeps all rows of anything else.
        model_kind : str or None
            Kind of the model that the rows are of; None where there is no model.
        norms : array of shape (rows,)
            Norms of the training rows.

        Raises
        ------
        ValueError
            If rows are to be left out and the median is 0, so that it says nothing of the others.
        """
        if setting == "auto":
            setting = NORM_MULTIPLE if model_kind == "causal" else None
        median = float(np.median(norms))
        if setting is not None and median == 0:
            raise ValueError(
                "shards.outlier_norm_multiple: expected a median norm of the train rows above 0, "
                f"got 0: {int((norms == 0).sum())} of {len(norms)} rows are zero, and all others "
                "would be left out (null keeps all)"
            )
        return cls(median, setting)

    @property
    def value(self) -> float | None:
        """Largest norm that is kept; None where all are."""
        return None if self.multiple is None else self.multiple * self.median

    def find_kept(self, norms: np.ndarray) -> np.ndarray:
        """Return which rows are kept, bool of the shape of `norms`."""
        return norms <= (np.inf if self.value is None else self.value)

    def find_outliers(self, norms: np.ndarray) -> np.ndarray:
        """Return which rows are over `NORM_MULTIPLE` medians; none where the median is 0."""
        return norms > (NORM_MULTIPLE * self.median if self.median > 0 else np.inf)

    def dump(self) -> dict[str, float | None]:
        """Return what the manifest holds."""
        return {"median": self.median, "multiple": self.multiple, "limit": self.value}


@dataclass
class RowCount:
    """Some rows of a split: how many, where they sit, how large they are."""

    moments: Moments
    largest: float = 0.0
    positions: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)

    def add(self, block: RowBlock, rows: np.ndarray, norms: np.ndarray) -> None:
        """Take in rows of a block with their norms."""
        if not len(rows):
            return
        self.moments.add(block.activations[rows])
        self.largest = max(self.largest, float(norms[rows].max()))
        self.positions.update(block.position[rows].tolist())
        self.tokens.update(block.token[rows].tolist())

    def describe(self, others: Moments, *, labelled: bool) -> dict[str, Any]:
        """Return what the manifest says of the rows.

        Parameters
        ----------
        others : Moments
            Of all other rows that the share of the variance is of.
        labelled : bool
            Whether the rows are of a model, so that their positions and tokens mean something.
        """
        if not self.moments.rows:
            return {"rows": 0}
        described: dict[str, Any] = {
            "rows": self.moments.rows,
            "largest_norm": self.largest,
            "variance_share": _share_variance(self.moments, others),
        }
        if labelled:
            described["positions"] = [list(pair) for pair in _rank(self.positions)]
            described["tokens"] = [list(pair) for pair in _rank(self.tokens)]
        return described


class NormTally:
    """Which rows of a split are kept, and what the others are.

    Parameters
    ----------
    norms : array of shape (rows,)
        Norms of all rows of the split.
    limit : NormLimit
        Which are left out.
    width : int
        Width d of the rows.
    """

    def __init__(self, norms: np.ndarray, limit: NormLimit, width: int) -> None:
        self.norms, self.limit = norms, limit
        self.kept = limit.find_kept(norms)
        self._outliers = limit.find_outliers(norms)
        self._left_out = RowCount(Moments.empty(width))
        self._kept_outliers = RowCount(Moments.empty(width))

    def take(self, start: int, block: RowBlock) -> np.ndarray:
        """Count the rows of a block, row `start` of the split and on; return which are kept."""
        rows = slice(start, start + len(block.activations))
        kept, norms = self.kept[rows], self.norms[rows]
        self._left_out.add(block, np.flatnonzero(~kept), norms)
        self._kept_outliers.add(block, np.flatnonzero(self._outliers[rows] & kept), norms)
        return np.flatnonzero(kept)

    def describe(self, kept: Moments, *, labelled: bool) -> dict[str, Any]:
        """Return what the manifest says of a split's norms.

        Parameters
        ----------
        kept : Moments
            Of the rows that are kept.
        labelled : bool
            As in `RowCount.describe`.
        """
        return {
            "rows_over_10_medians": int(self._outliers.sum()),
            "left_out": self._left_out.describe(kept, labelled=labelled),
            "kept_outliers": self._kept_outliers.describe(
                _subtract(kept, self._kept_outliers.moments), labelled=labelled
            ),
        }


def _subtract(whole: Moments, part: Moments) -> Moments:
    """Return the moments of the rows of `whole` that are not in `part`."""
    rows = whole.rows - part.rows
    if not part.rows or not rows:
        return whole if rows else Moments.empty(len(whole.mean))
    mean = (whole.mean * whole.rows - part.mean * part.rows) / rows
    shift = mean - part.mean
    between = float(shift @ shift) * rows * part.rows / whole.rows
    return Moments(rows, mean, max(0.0, whole.squares - part.squares - between))


def _share_variance(some: Moments, others: Moments) -> float:
    """Return the share of some rows in the total variance of them and the others."""
    rows = some.rows + others.rows
    mean = (some.mean * some.rows + others.mean * others.rows) / rows
    parts = [
        moments.squares + moments.rows * float(np.square(moments.mean - mean).sum())
        for moments in (some, others)
    ]
    return parts[0] / sum(parts) if sum(parts) > 0 else 0.0


def _rank(counts: Counter[int]) -> list[tuple[int, int]]:
    """Return the most frequent numbers with their counts; the lower first among equals."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_LISTED]
