"""Numbers about a fit: sums of squares and fractions of variance explained."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dbksvd.dictionaries.dictionary import Dictionary
from dbksvd.fit.reading import READ_ROWS, ActivationSource, read_rows
from dbksvd.ops.atom_update.update import compute_residual
from dbksvd.ops.pursuit.checks import LARGEST_SHIFT
from dbksvd.ops.ranks import ALONE, Ranks

# A difference of two sums of squares in float64 does not resolve this fraction of them.
ROUNDING = 1e-12


def sum_squares(x: Tensor) -> float:
    """Return Σ x², summed in float64."""
    return sum(
        float(torch.linalg.vector_norm(rows, dtype=torch.float64)) ** 2
        for rows in x.split(READ_ROWS)
    )


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
    error = total = 0.0
    offset = torch.zeros(source.width, dtype=torch.float64, device=device)
    for start in range(READ_ROWS * ranks.rank, len(source), READ_ROWS * ranks.size):
        stop = min(len(source), start + READ_ROWS)
        rows = read_rows(source, start, stop, "heldout").to(device)
        codes = dictionary.encode(rows)
        centred = rows - dictionary.bias
        error += sum_squares(compute_residual(centred, codes, dictionary.atoms))
        total += sum_squares(centred)
        offset += centred.sum(dim=0, dtype=torch.float64)
    error, total = ranks.sum_numbers(error, total)
    ranks.sum_(offset)
    # Σ‖x − x̄‖² = Σ‖x − b‖² − n ‖x̄ − b‖²; equal samples leave rounding where they should leave 0
    spread = total - float(offset @ offset) / len(source)
    return 1 - error / spread if spread > ROUNDING * total else float(error == 0)
