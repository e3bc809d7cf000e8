"""Atoms of several fits pooled: near ones form groups, which know how many fits have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor
from torch.nn.functional import normalize

from dbksvd.base.shapes import Atoms
from dbksvd.fit.task import FitTask

# Rows of the matrix of cosines that are computed at once.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Pool:
    """Groups of atoms of several dictionaries: first those that most dictionaries have.

    Parameters
    ----------
    atoms : float32 tensor of shape (g, d)
        Unit mean of each group.
    fits : int64 tensor of shape (g,)
        Dictionaries that have an atom in the group.
    groups : int64 tensor of shape (n,)
        Group of each pooled atom, the dictionaries one after another.
    cosines : float64 tensor of shape (n,)
        Of each pooled atom and the mean of its group; negative where its negative is meant.
    """

    atoms: Atoms
    fits: Tensor
    groups: Tensor
    cosines: Tensor

    def average(self, rows: Tensor) -> Tensor:
        """Return the means over the groups of what belongs to pooled atoms, shape (g, …)."""
        sums = rows.new_zeros(len(self.atoms), *rows.shape[1:]).index_add_(0, self.groups, rows)
        sizes = torch.bincount(self.groups, minlength=len(self.atoms)).to(rows)
        return sums / sizes.reshape(-1, *[1] * (rows.ndim - 1))


def pool_atoms(dictionaries: Sequence[Tensor], cosine: float, *, nonnegative: bool) -> Pool:
    """Group the atoms of several dictionaries by complete linkage.

    Any two atoms of a group have at least `cosine`. An atom without a near one is a group of its
    own.

    Parameters
    ----------
    dictionaries : sequence of tensors of shape (m, d)
        Unit atoms of each fit.
    cosine : float
        Least cosine in a group; |cosine| where codes are signed.
    nonnegative : bool
        Whether codes are non-negative, so that an atom and its negative are not the same.

    Returns
    -------
    Pool
        Groups in falling order of `fits`, of equal ones the more compact first.
    """
    atoms = torch.cat([normalize(one.double().cpu(), dim=1) for one in dictionaries])
    owners = torch.repeat_interleave(
        torch.arange(len(dictionaries)), torch.tensor([len(one) for one in dictionaries])
    )
    tree = linkage(_list_distances(atoms, nonnegative), "complete")
    groups = torch.from_numpy(fcluster(tree, 1 - cosine, "distance").astype(np.int64) - 1)
    count = int(groups.max()) + 1
    sums = _sum_groups(atoms, groups, count, nonnegative)
    pairs = torch.unique(groups * len(dictionaries) + owners)
    fits = torch.bincount(pairs // len(dictionaries), minlength=count)
    sizes = torch.bincount(groups, minlength=count)
    compact = torch.linalg.vector_norm(sums, dim=1) / sizes  # at most 1
    order = torch.argsort(fits + compact / 2, descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(count)
    means = normalize(sums, dim=1)[order]
    groups = place[groups]
    return Pool(means.float(), fits[order], groups, (atoms * means[groups]).sum(dim=1))


def take_groups(pool: Pool, dictionaries: Sequence[Tensor], count: int) -> Atoms:
    """Return the first `count` groups as unit atoms, float32.

    Where there are fewer groups, the pooled atoms that are farthest from the mean of their group
    follow.
    """
    missing = count - len(pool.atoms)
    if missing <= 0:
        return pool.atoms[:count].contiguous()
    atoms = torch.cat([normalize(one.float().cpu(), dim=1) for one in dictionaries])
    far = torch.argsort(pool.cosines.abs(), stable=True)[:missing]
    return torch.cat([pool.atoms, atoms[far]])


def describe_pool(task: FitTask, pool: Pool) -> dict[str, object]:
    """Return what the seal says of a pool.

    ``shared`` has the number of groups that one fit has, that two fits have, and so on.
    """
    shared = torch.bincount(pool.fits, minlength=len(task.bases) + 1)[1:].tolist()
    return {"of": task.settings.of, "bases": len(task.bases), "shared": shared}


def _list_distances(atoms: Tensor, nonnegative: bool) -> np.ndarray:
    """Return 1 − cosine of all pairs in scipy's order, float64 of shape (n (n − 1) / 2,)."""
    n = len(atoms)
    found = np.empty(n * (n - 1) // 2)
    filled = 0
    for start in range(0, n, ROWS_AT_ONCE):
        cosines = atoms[start : start + ROWS_AT_ONCE] @ atoms.T
        distances = (1 - (cosines if nonnegative else cosines.abs())).clamp(min=0).numpy()
        for row, values in enumerate(distances, start):
            found[filled : filled + n - row - 1] = values[row + 1 :]
            filled += n - row - 1
    return found


def _sum_groups(atoms: Tensor, groups: Tensor, count: int, nonnegative: bool) -> Tensor:
    """Return the sums over groups, of signed atoms with the sign of the first member."""
    if not nonnegative:
        first = torch.full((count,), len(atoms)).scatter_reduce_(
            0, groups, torch.arange(len(atoms)), "amin"
        )
        sides = (atoms * atoms[first[groups]]).sum(dim=1)
        atoms = torch.where(sides < 0, -1.0, 1.0)[:, None] * atoms
    sums = atoms.new_zeros(count, atoms.shape[1])
    return sums.index_add_(0, groups, atoms)
