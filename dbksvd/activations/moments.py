"""Mean and total variance of rows that come in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass
class Moments:
    """Running mean and centred sum of squares of rows, in float64 (Chan, Golub, LeVeque 1983)."""

    rows: int
    mean: np.ndarray
    squares: float

    @classmethod
    def empty(cls, width: int) -> Self:
        """Return the moments of no rows."""
        return cls(0, np.zeros(width), 0.0)

    def add(self, block: np.ndarray) -> None:
        """Take in a block of shape (rows, d)."""
        if not len(block):
            return
        mean = block.mean(axis=0, dtype=np.float64)
        total = self.rows + len(block)
        shift = mean - self.mean
        between = float(shift @ shift) * self.rows * len(block) / total
        self.squares += float(np.square(block - mean).sum()) + between
        self.mean += shift * (len(block) / total)
        self.rows = total

    @property
    def variance(self) -> float:
        """Total variance: the mean squared distance from the mean, summed over coordinates."""
        return self.squares / self.rows
