"""What picking an atom costs: the code length of saying that it is there.

With atom j used by a fraction q_j of the samples, the penalties are ``c_j = s ln(1 / q_j)``: a
pursuit that picks while p_j² > c_j lowers ``‖r‖² + s Σ_{j in S} ln(1 / q_j)``, the description
length of a sample for noise of variance s/2 in each coordinate. The one number s is set so that
samples have a wanted number of non-zeros on average.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from dbksvd.codes import SparseCodes
from dbksvd.dictionary import PursuitSettings, encode_with
from dbksvd.shapes import Activations, Atoms

# Samples that the scale is set on, and halvings of its interval.
CALIBRATION_ROWS = 4096
HALVINGS = 14


def find_usage(codes: SparseCodes) -> Tensor:
    """Return the fraction of samples that use each atom, above 0 and below 1, float64 (m,)."""
    return (codes.count_usage().double() + 0.5) / (len(codes) + 1)


def set_penalties(
    x: Activations,
    atoms: Atoms,
    usage: Tensor,
    l0: float,
    settings: PursuitSettings,
    *,
    implementation: str = "auto",
) -> PursuitSettings:
    """Return `settings` with penalties at which samples have `l0` non-zeros on average.

    Parameters
    ----------
    x : tensor of shape (n, d)
        Centred samples, of which the first `CALIBRATION_ROWS` are coded.
    atoms : tensor of shape (m, d)
        Unit atoms.
    usage : float64 tensor of shape (m,)
        See :func:`find_usage`.
    l0 : float
        Non-zeros a sample, on average; ``settings.k`` is the most one may have.
    settings : PursuitSettings
        The pursuit.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    """
    lengths = -usage.log()
    rows = x[:CALIBRATION_ROWS]
    # at this scale no atom is worth its penalty
    low, high = 0.0, float(rows.double().square().sum(1).max() / lengths.min())
    for _ in range(2 * HALVINGS):
        # the scale of interest is far below the upper end: halve its logarithm once there is one
        scale = (low * high) ** 0.5 if low > 0 else high / 2
        found = with_scale(settings, lengths, scale)
        codes = encode_with(rows, atoms, found, implementation=implementation)
        if codes.l0.double().mean() > l0:
            low = scale
        else:
            high = scale
        if low > 0 and high / low < 1.005:
            break
    return with_scale(settings, lengths, high)


def with_scale(settings: PursuitSettings, lengths: Tensor, scale: float) -> PursuitSettings:
    """Return `settings` with the penalties ``scale · lengths``."""
    return replace(settings, threshold=0.0, penalties=tuple((scale * lengths).tolist()))
