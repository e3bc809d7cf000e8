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
from dbksvd.dictionary import PursuitSettings
from dbksvd.fit.calibration import CALIBRATION_ROWS, find_scale
from dbksvd.shapes import Activations, Atoms


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
        The pursuit; if it has penalties, the search begins from them.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    """
    lengths = -usage.log()
    # at this scale no atom is worth its penalty
    high = float(x[:CALIBRATION_ROWS].double().square().sum(1).max() / lengths.min())
    before = settings.penalties
    return find_scale(
        *(x, atoms, l0, high, lambda scale: with_scale(settings, lengths, scale)),
        near=sum(before) / float(lengths.sum()) if before else None,
        implementation=implementation,
    )


def with_scale(settings: PursuitSettings, lengths: Tensor, scale: float) -> PursuitSettings:
    """Return `settings` with the penalties ``scale · lengths``."""
    return replace(settings, threshold=0.0, penalties=tuple((scale * lengths).tolist()))
