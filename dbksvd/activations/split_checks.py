"""Whether a score on the rows of a split means anything: refused or warned of where it is made."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from dbksvd.activations.moments import Moments
from dbksvd.activations.row_kernels import hash_words

logger = logging.getLogger(__name__)

# Shares of a split, as counts for one row in so many: more are worth a line in the log.
ONE_ZERO_IN, ONE_COPY_IN = 100, 10
# Below this a fraction of variance explained moves by percents with the choice of rows.
FEW_ROWS = 100
# The variance must be this many times the error of rounding the rows to their dtype.
ROUNDING_MULTIPLE = 64


def hash_rows(block: np.ndarray) -> tuple[np.ndarray, int]:
    """Return a number of 64 bits for each row, equal for equal rows, and how many rows are zero.

    Parameters
    ----------
    block : floating array of shape (rows, d)
        The rows. A row's number is a sum of its bits with random odd weights, modulo 2⁶⁴.
    """
    weights = np.random.default_rng(0).integers(0, 2**64, block.shape[1], np.uint64) | np.uint64(1)
    found = np.empty(len(block), np.uint64)
    words = np.ascontiguousarray(block).view(f"u{block.itemsize}")
    return found, hash_words(words, weights, 4 * block.itemsize, found)


@dataclass
class KeptRows(Moments):
    """The rows of a split that are kept: their moments, and how many are zero or copies."""

    zero_rows: int = 0
    hashes: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, block: np.ndarray) -> Self:
        """Return what there is to know of a block of shape (rows, d)."""
        found = super().of(block)
        hashes, found.zero_rows = hash_rows(block)
        found.hashes = [hashes]
        return found

    def merge(self, other: Moments) -> None:
        """Take in what is known of other rows."""
        super().merge(other)
        assert isinstance(other, KeptRows)
        self.zero_rows += other.zero_rows
        self.hashes += other.hashes

    def count_distinct(self) -> int:
        """Return how many rows differ from one another."""
        return len(np.unique(np.concatenate(self.hashes))) if self.hashes else 0


def check_kept(split: str, kept: np.ndarray) -> None:
    """Refuse a split without rows.

    Parameters
    ----------
    split : str
        Its name.
    kept : bool array of shape (rows,)
        Which of its rows are not left out as outliers.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not kept.any():
        raise ValueError(
            f"{split}: expected at least 2 rows that differ, got none: {len(kept)} rows, all left "
            "out as outliers"
        )


def check_split(split: str, counts: dict[str, Any], mean: np.ndarray, dtype: str) -> None:
    """Refuse a split on which no score means anything; warn of one where scores say little.

    Parameters
    ----------
    split : str
        Its name.
    counts : dict
        Of the rows that are kept: ``rows``, ``distinct_rows``, ``zero_rows``, ``masked_rows`` and
        ``total_variance``.
    mean : array of shape (d,)
        Mean of the rows.
    dtype : str
        Type that they are stored in.

    Raises
    ------
    ValueError
        If fewer than 2 rows differ, or the variance is no more than rounding makes.
    """
    rows, distinct, zeros = (counts[name] for name in ("rows", "distinct_rows", "zero_rows"))
    got = f"{rows} row{'s' if rows > 1 else ''}"
    if counts["masked_rows"]:
        got += f" ({counts['masked_rows']} more left out as outliers)"
    if distinct < 2:
        same = "all zero" if zeros == rows else "all the same"
        raise ValueError(
            f"{split}: expected at least 2 rows that differ, got {got}{f', {same}' * (rows > 1)}: "
            "without variance no score means anything"
        )
    variance, magnitude = counts["total_variance"], float(mean @ mean)
    least = ROUNDING_MULTIPLE * (np.finfo(dtype).eps / 2) ** 2 * magnitude
    if variance <= least:
        raise ValueError(
            f"{split}: expected a variance above {least:.3g}, {ROUNDING_MULTIPLE} times what "
            f"rounding to {dtype} makes of rows of norm {magnitude**0.5:.3g}, got {variance:.3g} "
            f"over {got}: scores would measure rounding"
        )
    if rows < FEW_ROWS:
        logger.warning("%s: %d rows: scores over so few say little", split, rows)
    if zeros * ONE_ZERO_IN > rows:
        logger.warning("%s: %d of %d rows are zero", split, zeros, rows)
    if (rows - distinct) * ONE_COPY_IN > rows:
        logger.warning("%s: %d of %d rows are copies of others", split, rows - distinct, rows)
