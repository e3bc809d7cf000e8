"""Mean and total variance of rows that come in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from dbksvd.activations.row_kernels import sum_rows, sum_squares, widen


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

    @classmethod
    def of(cls, block: np.ndarray) -> Self:
        """Return the moments of a block of shape (rows, d)."""
        if not len(block):
            return cls.empty(block.shape[1])
        block = widen(block)
        mean = sum_rows(block) / len(block)
        return cls(len(block), mean, float(sum_squares(block, mean)))

    def merge(self, other: Moments) -> None:
        """Take in the moments of other rows."""
        if not other.rows:
            return
        total = self.rows + other.rows
        shift = other.mean - self.mean
        between = float(shift @ shift) * self.rows * other.rows / total
        self.squares += other.squares + between
        self.mean += shift * (other.rows / total)
        self.rows = total

    def add(self, block: np.ndarray) -> None:
        """Take in a block of shape (rows, d)."""
        self.merge(self.of(block))

    @property
    def variance(self) -> float:
        """Total variance: the mean squared distance from the mean, summed over coordinates."""
        return self.squares / self.rows
