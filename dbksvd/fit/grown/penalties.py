"""Penalties of atoms: in proportion to the code length of saying that an atom is used.

With q_j the fraction of samples that use atom j, the penalties are ``c_j = s ln(1 / q_j)``: a
pursuit that picks while p_j² > c_j ‖x‖² lowers ``‖r‖² / ‖x‖² + s Σ_{j in S} ln(1 / q_j)`` over
supports S, the description length of a sample whose noise has the variance s ‖x‖² / 2 in each
coordinate. The scale s is set so that samples have a wanted number of non-zeros on average. The
noise is in proportion to the sample, so that a large sample gets no more atoms for being large.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.base.shapes import Activations, Atoms
from dbksvd.dictionaries.dictionary import PursuitSettings
from dbksvd.fit.ksvd.calibration import find_scale


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
        The pursuit; if it has penalties, the search begins from their scale.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    """
    lengths = -usage.log()
    # No product with a unit atom is larger than the norm of the sample: at this scale every penalty
    # is at least ‖x‖², and no atom is picked.
    high = 1 / float(lengths.min())
    before = settings.penalties
    return find_scale(
        *(x, atoms, l0, high, lambda scale: with_scale(settings, lengths, scale)),
        near=sum(before) / float(lengths.sum()) if before else None,
        implementation=implementation,
    )


def with_scale(settings: PursuitSettings, lengths: Tensor, scale: float) -> PursuitSettings:
    """Return `settings` with the penalties ``scale · lengths``, at most 1."""
    penalties = (scale * lengths).clamp(max=1)
    return replace(settings, threshold=0.0, penalties=tuple(penalties.tolist()))
