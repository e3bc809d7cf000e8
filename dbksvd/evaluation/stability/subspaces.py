"""Whether two sets of atoms span the same subspace: principal angles."""

from __future__ import annotations

import torch
from torch import Tensor

# Directions of the atoms whose singular value is below this part of the largest are rounding.
RANK_TOLERANCE = 1e-5


def measure_overlap(first: Tensor, second: Tensor) -> tuple[float, float] | None:
    """Return how far the spans of two sets of atoms agree, and how far random ones do.

    The overlap is the mean squared cosine of the principal angles θ of the two spans (Björck and
    Golub 1973), ``‖Q₁ Q₂ᵀ‖² / min(r₁, r₂)`` for orthonormal bases Q of r rows: 1 where one span
    holds the other, 0 where they are orthogonal. Between random subspaces of the same dimensions it
    is ``max(r₁, r₂) / d`` on the mean.

    Parameters
    ----------
    first, second : floating tensors of shape (m, d) and (m', d)
        Atoms.

    Returns
    -------
    (float, float), or None
        Overlap and its random floor; None where a side has no atom, or one spans all of the space,
        so that the overlap is 1 whatever the atoms are.
    """
    bases = [_find_basis(atoms) for atoms in (first, second)]
    ranks = [len(basis) for basis in bases]
    width = first.shape[1]
    if not min(ranks) or max(ranks) == width:
        return None
    overlap = (bases[0] @ bases[1].T).square().sum() / min(ranks)
    return float(overlap), max(ranks) / width


def _find_basis(atoms: Tensor) -> Tensor:
    """Return an orthonormal basis (r, d) of the span of atoms, float64."""
    atoms = atoms.detach().double().cpu()
    if not len(atoms):
        return atoms
    if len(atoms) > atoms.shape[1]:  # the triangular factor has the same span and fewer rows
        atoms = torch.linalg.qr(atoms, mode="r").R
    _, values, basis = torch.linalg.svd(atoms, full_matrices=False)
    return basis[values > RANK_TOLERANCE * values[0]]
