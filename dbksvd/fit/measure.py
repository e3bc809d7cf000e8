"""Numbers about a fit: sums of squares and fractions of variance explained."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dbksvd.base.variance import ExplainedVariance
from dbksvd.dictionaries.dictionary import Dictionary
from dbksvd.fit.reading import READ_ROWS, ActivationSource, read_rows
from dbksvd.ops.pursuit.checks import LARGEST_SHIFT
from dbksvd.ops.ranks import ALONE, Ranks

# Numbers of a block that stays in cache as float64.
BLOCK = 1 << 16


def sum_squares(x: Tensor) -> float:
    """Return Σ x², summed in float64; a device is asked once."""
    if x.device.type == "cpu":  # where a norm of float32 in float64 takes six times as long
        blocks = (block.double() for block in x.reshape(-1).split(BLOCK))
        return sum(float(torch.dot(block, block)) for block in blocks)
    norms = [torch.linalg.vector_norm(rows, dtype=torch.float64) for rows in x.split(READ_ROWS)]
    return float(sum(norm**2 for norm in torch.stack(norms).tolist()))


def find_exponent(x: Tensor) -> int:
    """Return the power of two that brings the root mean square of `x` near 1 (0 for zeros)."""
    largest = float(x.abs().max())
    if largest == 0:
        return 0
    spread = largest * (sum_squares(x / largest) / x.numel()) ** 0.5
    limit = LARGEST_SHIFT[x.dtype]
    return max(-limit, min(int(np.frexp(spread)[1]), limit))


def measure_explained(
    dictionary: Dictionary,
    source: ActivationSource,
    device: torch.device | str = "cpu",
    ranks: Ranks = ALONE,
) -> float:
    """Return ``1 − Σ‖x − x̂‖² / Σ‖x − x̄‖²`` over all samples of `source`, x̄ their own mean.

    Parameters
    ----------
    dictionary : Dictionary
        Codes and reconstructs the samples.
    source : ActivationSource
        Samples, read in blocks.
    device : torch.device or str
        Where to compute.
    ranks : Ranks
        The processes that share the blocks; all get the same answer.
    """
    dictionary = dictionary.to(device)
    variance = ExplainedVariance(source.width, device)
    for start in range(READ_ROWS * ranks.rank, len(source), READ_ROWS * ranks.size):
        stop = min(len(source), start + READ_ROWS)
        rows = read_rows(source, start, stop, "heldout").to(device)
        variance.add(rows, dictionary.decode(dictionary.encode(rows), torch.float64))
    _join(variance, ranks)
    return variance.compute("heldout")


def _join(variance: ExplainedVariance, ranks: Ranks) -> None:
    """Make each rank's sums those over the samples of all."""
    if ranks.size == 1:
        return
    total, error = ranks.sum_numbers(variance.rows, variance.error)
    mean = ranks.sum_(variance.mean * (variance.rows / total))
    shift = variance.mean - mean
    (squares,) = ranks.sum_numbers(variance.squares + variance.rows * float(shift @ shift))
    variance.rows, variance.error, variance.mean, variance.squares = total, error, mean, squares
