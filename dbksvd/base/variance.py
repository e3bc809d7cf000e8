"""The fraction of variance that reconstructions explain: one formula for fits and scores."""

from __future__ import annotations

import torch
from torch import Tensor

# Rounding of means in float64 leaves up to 2⁻¹⁰⁴ of a sum of squares where all samples are equal;
# a single float32 that differs in its last bit, among 2⁴⁰ numbers, leaves 2⁻⁸⁸.
NO_VARIANCE = 2.0**-96
BLOCK_ROWS = 4096  # copied to float64 at a time


class ExplainedVariance:
    """Running ``1 − Σ‖x − x̂‖² / Σ‖x − x̄‖²`` over blocks of samples, x̄ the mean of them all.

    All is summed in float64, around the mean of each block, and the blocks are joined as by Chan,
    Golub and LeVeque (1983): a large constant in the samples costs no digits.

    Attributes
    ----------
    rows : float
        Samples so far.
    error : float
        Σ‖x − x̂‖².
    mean : tensor of shape (d,)
        x̄ of the samples so far, float64.
    squares : float
        Σ‖x − x̄‖².
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        self.rows = self.error = self.squares = 0.0
        self.mean = torch.zeros(width, dtype=torch.float64, device=device)

    def add(self, x: Tensor, reconstruction: Tensor) -> None:
        """Take in samples (n, d) and their reconstructions, both of any dtype."""
        for rows, made in zip(x.split(BLOCK_ROWS), reconstruction.split(BLOCK_ROWS), strict=True):
            if len(rows):
                self._add_block(rows, made)

    def _add_block(self, x: Tensor, reconstruction: Tensor) -> None:
        x = x.to(self.mean)
        self.error += float((x - reconstruction.to(self.mean)).square().sum())
        total = self.rows + len(x)
        mean = x.mean(dim=0)
        deviation = x - mean
        left = deviation.sum(dim=0)  # what rounding of the mean leaves
        shift = mean - self.mean
        self.squares += float(deviation.square().sum()) - float(left @ left) / len(x)
        self.squares += float(shift @ shift) * self.rows * len(x) / total
        self.mean += shift * (len(x) / total)
        self.rows = total

    def compute(self, name: str = "activations") -> float:
        """Return the fraction.

        Parameters
        ----------
        name : str
            What the samples are called, for messages.

        Raises
        ------
        ValueError
            If there are no two samples that differ: no fraction of nothing can be explained.
        """
        whole = self.squares + self.rows * float(self.mean @ self.mean)
        if self.squares <= NO_VARIANCE * whole:
            raise ValueError(
                f"{name}: expected at least 2 samples that differ, got {self.rows:.0f} that do "
                "not: without variance no score means anything"
            )
        return 1 - self.error / self.squares
