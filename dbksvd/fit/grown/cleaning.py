"""Atoms set from the samples in which they come alone.

An atom that has features below it without atoms of their own becomes the mean of what its samples
hold: f + Σ p_k h_k for a feature f with children h_k. In the samples of an atom the residual then
has most of its variance along the h_k, and where none of them fires it has little there. The
update of these samples alone is nearer to f.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dbksvd.base.codes import SparseCodes
from dbksvd.base.shapes import Activations, Atoms
from dbksvd.ops.atom_update.update import compute_residual

# Directions of an atom's residuals in which there may be features without atoms.
DIRECTIONS = 4
# Subspace iterations that find them: near enough, and far cheaper than all eigenvectors.
SUBSPACE_ITERATIONS = 5
# An atom of fewer samples stays as it is.
MIN_SAMPLES = 50
# Coefficients below this fraction of the upper quartile may be mistakes.
CLEAR = 0.6
UPPER_QUARTILE = 0.75


def clean_atoms_(
    x: Activations, codes: SparseCodes, atoms: Atoms, kept: float, chosen: Tensor
) -> None:
    """Update each chosen atom on the samples that hold least of what has no atom.

    Of the samples with a clear coefficient of the atom, those `kept` count whose residual has the
    smallest energy in the `DIRECTIONS` main directions of the residuals, each divided by the
    coefficient. The atom becomes the direction of ``Σ z_i (r_i + z_i d)`` over them. Rare atoms
    come first, and each sees the residual that those before it left: a parent does not take what
    its child has taken.

    Parameters
    ----------
    x : tensor of shape (n, d)
        Centred samples.
    codes : SparseCodes
        Their non-negative codes, left as they are.
    atoms : tensor of shape (m, d)
        Unit atoms, changed in place.
    kept : float
        Fraction of the samples, above 0 and at most 1.
    chosen : bool tensor of shape (m,)
        The atoms.
    """
    residual = compute_residual(x, codes, atoms)
    samples, slots = torch.nonzero(codes.values > 0, as_tuple=True)
    used, values = codes.indices[samples, slots], codes.values[samples, slots]
    order = used.argsort(stable=True)
    counts = torch.bincount(used, minlength=len(atoms))
    own_samples = samples[order].split(counts.tolist())
    own_values = values[order].split(counts.tolist())
    for j in counts.argsort(stable=True).tolist():
        rows, z = own_samples[j], own_values[j]
        if chosen[j] and len(rows) >= MIN_SAMPLES:
            step = find_clean_step(residual[rows], z, kept)
            residual[rows] -= z[:, None] * step
            atoms[j] = normalize(atoms[j] + step, dim=0)


def find_clean_step(residual: Tensor, z: Tensor, kept: float) -> Tensor:
    """Return what to add to an atom, given residuals (n, d) and coefficients (n,) of its samples.

    See :func:`clean_atoms_`.
    """
    order = z.argsort()
    upper = z[order[int(UPPER_QUARTILE * (len(z) - 1))]]
    is_clear = z > CLEAR * upper
    residual, z = residual[is_clear], z[is_clear]
    relative = residual / z[:, None]
    main = relative[:DIRECTIONS].T
    for _ in range(SUBSPACE_ITERATIONS):
        main = torch.linalg.qr(relative.T @ (relative @ main))[0]
    energy = (residual @ main).square().sum(dim=1)
    best = energy.argsort(stable=True)[: max(1, int(kept * len(z)))]
    return z[best] @ residual[best] / z[best].square().sum()
