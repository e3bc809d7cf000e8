"""Cleaning: atoms set again from those of their samples that hold no feature without an atom.

An atom whose feature f has children h_k without atoms of their own (they fire only with f) becomes
the mean of what its samples hold: f + Σ p_k h_k, with p_k the fraction of them in which h_k fires.
In the samples of this atom the residual has most of its variance along the h_k. Samples in which no
child fires have little residual there, and an update from these samples alone is nearer to f.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dbksvd.base.codes import SparseCodes
from dbksvd.base.shapes import Activations, Atoms
from dbksvd.fit.grown.plan import DIRECTIONS, SUBSPACE_ITERATIONS
from dbksvd.ops.atom_update.update import compute_residual

# An atom that fewer samples use stays as it is.
MIN_SAMPLES = 50
# A coefficient below this fraction of the atom's upper quartile may be a false pick.
CLEAR = 0.6
UPPER_QUARTILE = 0.75


def clean_atoms_(
    x: Activations, codes: SparseCodes, atoms: Atoms, kept: float, chosen: Tensor
) -> None:
    """Update each chosen atom on the samples that hold least of the features without atoms.

    Let z_i be the coefficients of atom d in its samples and r_i their residuals. Samples with a
    clear coefficient are ranked by the energy of r_i in the `DIRECTIONS` main directions of all
    r_i / z_i; the fraction `kept` of them with the least energy is used. The atom becomes the
    direction of ``Σ z_i (r_i + z_i d)`` over these samples. Atoms are updated from the rarest to
    the most frequent, and the residual is carried along: a parent does not take up what the update
    of its child has explained.

    Parameters
    ----------
    x : tensor of shape (n, d)
        Centred samples.
    codes : SparseCodes
        Their non-negative codes, left as they are.
    atoms : tensor of shape (m, d)
        Unit atoms, changed in place.
    kept : float
        Fraction of an atom's clear samples that are used, above 0 and at most 1.
    chosen : bool tensor of shape (m,)
        Which atoms are updated.
    """
    residual = compute_residual(x, codes, atoms)
    samples, slots = torch.nonzero(codes.values > 0, as_tuple=True)
    used, values = codes.indices[samples, slots], codes.values[samples, slots]
    order = used.argsort(stable=True)
    counts = torch.bincount(used, minlength=len(atoms))
    sizes = counts.tolist()
    own_samples, own_values = samples[order].split(sizes), values[order].split(sizes)
    is_chosen = chosen.tolist()  # a device is asked once, not for each atom
    for j in counts.argsort(stable=True).tolist():
        rows, z = own_samples[j], own_values[j]
        if is_chosen[j] and len(rows) >= MIN_SAMPLES:
            step = find_clean_step(residual[rows], z, kept)
            residual[rows] -= z[:, None] * step
            atoms[j] = normalize(atoms[j] + step, dim=0)


def find_clean_step(residual: Tensor, z: Tensor, kept: float) -> Tensor:
    """Return what to add to an atom; see :func:`clean_atoms_`.

    Parameters
    ----------
    residual : tensor of shape (n, d)
        Residuals of the samples that use the atom.
    z : tensor of shape (n,)
        Their coefficients, above 0.
    kept : float
        Fraction of the samples with a clear coefficient that is used.
    """
    upper = z.sort().values[int(UPPER_QUARTILE * (len(z) - 1))]
    (clear,) = torch.nonzero(z > CLEAR * upper, as_tuple=True)
    residual, z = residual[clear], z[clear]
    relative = residual / z[:, None]
    main = relative[:DIRECTIONS].T
    for _ in range(SUBSPACE_ITERATIONS):
        main = torch.linalg.qr(relative.T @ (relative @ main))[0]
    energy = (residual @ main).square().sum(dim=1)
    best = energy.argsort(stable=True)[: max(1, int(kept * len(z)))]
    return z[best] @ residual[best] / z[best].square().sum()
