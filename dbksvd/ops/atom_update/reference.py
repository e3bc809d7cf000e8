"""The definition of the atom update: one atom at a time, in float64, to be read.

Legend: R = X − Z D residual (n, d), Ω the samples that use the atom, z their coefficients, d the
atom (all before the update), E = R[Ω] + z dᵀ what is left of the samples without the atom.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dbksvd.ops.ranks import ALONE, Ranks


def compute_residual(x: Tensor, indices: Tensor, values: Tensor, atoms: Tensor) -> Tensor:
    """Return X − Z D in float64, cast to the dtype of `x`."""
    chosen = atoms.double()[indices]
    return (x.double() - (values.double().unsqueeze(2) * chosen).sum(1)).to(x)


def update_(
    residual: Tensor,
    indices: Tensor,
    values: Tensor,
    atoms: Tensor,
    order: Tensor,
    atom_batch: int,
    power_iterations: int,
    nonnegative: bool,
    ranks: Ranks = ALONE,
) -> None:
    """Update in place; see :func:`dbksvd.ops.atom_update.update_atoms_`.

    The supports are read once, before the first atom; atoms of a batch see the same R.
    """
    R = residual.double().cpu().numpy()
    Z = values.double().cpu().numpy()
    D = atoms.double().cpu().numpy()
    places = indices.cpu().numpy()
    support = {j: np.nonzero((places == j) & (Z != 0)) for j in order.tolist()}
    for batch in order.split(atom_batch):
        steps = (power_iterations, nonnegative, ranks)
        found = [
            (j, improve_atom(R[support[j][0]], Z[support[j]], D[j], *steps))
            for j in batch.tolist()
            if len(support[j][0]) or ranks.size > 1
        ]
        for j, (d, z) in found:
            np.add.at(R, support[j][0], np.outer(Z[support[j]], D[j]) - np.outer(z, d))
            D[j], Z[support[j]] = d, z
    for tensor, array in ((residual, R), (values, Z), (atoms, D)):
        tensor.copy_(torch.from_numpy(array))


def improve_atom(
    R: np.ndarray,
    z: np.ndarray,
    d: np.ndarray,
    power_iterations: int,
    nonnegative: bool,
    ranks: Ranks = ALONE,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a better unit atom and its coefficients: power iterations on E = R + z dᵀ.

    Each half step is the best one with the other half fixed, so ‖E − z dᵀ‖ never rises. The
    atom keeps the half space of the old one (a sign is otherwise free). Where Eᵀz vanishes, the
    best so far is returned. Clipping never leaves z = 0: z·E d = ‖Eᵀz‖ > 0 for the z before.
    Each rank has the rows of R and z of its own samples.

    Parameters
    ----------
    R : float64 array of shape (samples, d)
        Residual of the samples that use the atom.
    z : float64 array of shape (samples,)
        Coefficients of these samples.
    d : float64 array of shape (d,)
        The atom.
    power_iterations, nonnegative, ranks
        As of :func:`dbksvd.ops.atom_update.update.update_atoms_`.
    """
    E = R + np.outer(z, d)
    new_d, new_z = d, z
    for _ in range(power_iterations):
        g = ranks.sum_(torch.from_numpy(E.T @ new_z)).numpy()
        norm = np.linalg.norm(g)
        if norm == 0:
            break
        new_d = g / norm
        new_z = np.maximum(E @ new_d, 0) if nonnegative else E @ new_d
    if not nonnegative and new_d @ d < 0:
        return -new_d, -new_z
    return new_d, new_z
