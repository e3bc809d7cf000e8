"""Numbers that all pursuits share: numerical zero, the floor of products, the most steps.

Numerical zero
    Products of at most ``ZERO_EPS · eps · ‖x‖`` count as zero, and an atom whose squared distance
    to the span of others is at most ``√eps`` counts as lying in that span; eps is that of the
    dtype of the caller's samples, so that float32 and float64 implementations mean the same.

Floor
    Products of at most φ are not picked: φ is the larger of the numerical zero and ``threshold``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dbksvd.ops.pursuit.checks import shift_exponents

ZERO_EPS = 64
STEPS_PER_ATOM = 4


def find_tolerances(dtype: torch.dtype) -> tuple[float, float]:
    """Return what counts as a zero product (per norm) and as a zero squared distance."""
    eps = torch.finfo(dtype).eps
    return ZERO_EPS * eps, eps**0.5


def find_floors(
    norms: Tensor, dtype: torch.dtype, threshold: float, exponents: Tensor | None
) -> Tensor:
    """Return φ, the largest product that is not picked, of each sample.

    Parameters
    ----------
    norms : float64 tensor of shape (n,)
        Norms of the samples as :func:`dbksvd.ops.pursuit.checks.scale_rows` gives them.
    dtype : torch.dtype
        That of the caller's samples.
    threshold : float
        In the unit of the caller's samples.
    exponents : integer tensor of shape (n, 1), or None
        The powers of two taken out of the samples.
    """
    zeros = find_tolerances(dtype)[0] * norms
    limits = torch.full_like(norms, threshold)
    if exponents is not None:
        limits = shift_exponents(limits, -exponents.squeeze(1))
    return torch.maximum(zeros, limits)
