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

# Powers of the cosine to the nearest atom of a dictionary: as a weight in a mean, and as a vote.
WEIGHT_POWER, VOTE_POWER = 8, 4
# Rows of the matrix of cosines that are computed at once.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Pool:
    """Groups of atoms of several dictionaries, those with most votes first.

    Parameters
    ----------
    atoms : float32 tensor of shape (g, d)
        Unit weighted mean of the members of each group.
    votes : float64 tensor of shape (g,)
        Sum over dictionaries of the cosine of the nearest atom to the fourth power: about how many
        dictionaries have the atom.
    fits : int64 tensor of shape (g,)
        Dictionaries with an atom that was grouped here.
    members : int64 tensor of shape (g, s)
        Nearest atom of each of the s dictionaries, counted over all of them one after another.
    weights : float64 tensor of shape (g, s)
        What each member weighs; negative where its negative is meant.
    nonnegative : bool
        Whether codes are non-negative.
    """

    atoms: Atoms
    votes: Tensor
    fits: Tensor
    members: Tensor
    weights: Tensor
    nonnegative: bool

    def average(self, rows: Tensor) -> Tensor:
        """Return the weighted means over members of what belongs to pooled atoms, shape (g, …)."""
        shares = self.weights.abs() / self.weights.abs().sum(dim=1, keepdim=True)
        return torch.einsum("gs,gs...->g...", shares.to(rows), rows[self.members])


def pool_atoms(dictionaries: Sequence[Tensor], cosine: float, *, nonnegative: bool) -> Pool:
    """Group the atoms of several dictionaries, and rank the groups by votes.

    Groups come from complete linkage: any two atoms of a group have at least `cosine`. The atom of
    a group is then the mean of the nearest atom of each dictionary to the group's mean, with
    weights of cosine^8: a dictionary without a near atom hardly counts.

    Parameters
    ----------
    dictionaries : sequence of tensors of shape (m, d)
        Unit atoms of each fit.
    cosine : float
        Least cosine in a group; |cosine| where codes are signed.
    nonnegative : bool
        Whether codes are non-negative, so that an atom and its negative are not the same.
    """
    parts = [normalize(one.double().cpu(), dim=1) for one in dictionaries]
    atoms = torch.cat(parts)
    tree = linkage(_list_distances(atoms, nonnegative), "complete")
    groups = torch.from_numpy(fcluster(tree, 1 - cosine, "distance").astype(np.int64) - 1)
    count = int(groups.max()) + 1
    sums = _sum_groups(atoms, groups, count, nonnegative)
    owners = torch.repeat_interleave(
        torch.arange(len(parts)), torch.tensor([len(one) for one in parts])
    )
    pairs = torch.unique(groups * len(parts) + owners)
    fits = torch.bincount(pairs // len(parts), minlength=count)
    members, cosines = _find_nearest(normalize(sums, dim=1), parts, nonnegative)
    weights = cosines.sign() * cosines.abs().pow(WEIGHT_POWER)
    means = normalize(torch.einsum("gs,gsd->gd", weights, atoms[members]), dim=1)
    votes = _find_nearest(means, parts, nonnegative)[1].abs().pow(VOTE_POWER).sum(dim=1)
    order = torch.argsort(votes, descending=True, stable=True)
    return Pool(
        atoms=means[order].float(),
        votes=votes[order],
        fits=fits[order],
        members=members[order],
        weights=weights[order],
        nonnegative=nonnegative,
    )


def take_groups(pool: Pool, dictionaries: Sequence[Tensor], count: int) -> Atoms:
    """Return the first `count` groups as unit atoms, float32.

    Where there are fewer groups, the pooled atoms that are farthest from all of them follow.
    """
    missing = count - len(pool.atoms)
    if missing <= 0:
        return pool.atoms[:count].contiguous()
    atoms = torch.cat([normalize(one.float().cpu(), dim=1) for one in dictionaries])
    cosines = atoms @ pool.atoms.T
    near = (cosines if pool.nonnegative else cosines.abs()).amax(dim=1)
    return torch.cat([pool.atoms, atoms[torch.argsort(near, stable=True)[:missing]]])


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


def _find_nearest(
    means: Tensor, parts: Sequence[Tensor], nonnegative: bool
) -> tuple[Tensor, Tensor]:
    """Return the atom of each dictionary that is nearest to each mean, and the cosine to it.

    Both have shape (g, s); cosines below 0 are 0 where codes are non-negative.
    """
    members, found, before = [], [], 0
    for part in parts:
        cosines = means @ part.T
        near = (cosines if nonnegative else cosines.abs()).argmax(dim=1)
        members.append(near + before)
        found.append(cosines.gather(1, near[:, None]).squeeze(1))
        before += len(part)
    cosines = torch.stack(found, dim=1)
    return torch.stack(members, dim=1), cosines.clamp(min=0) if nonnegative else cosines
