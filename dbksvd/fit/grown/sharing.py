"""Atoms that go with one another: which they are, and what each is given back of the others.

If feature r fires with exactly one of c_1 … c_q, samples hold r + c_i and never r alone. In their
span the best directions for the q + 1 features are their projections, all at the same cosine to
the feature, where neighbours have a cosine of 1/q with r. Growth instead gives r the mean of
r + c_i, and c_i what that leaves, at a right angle to it: a share of r is missing in c_i.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dbksvd.base.codes import SparseCodes
from dbksvd.base.shapes import Atoms

# Atom j goes with atom i if it is used by more than this fraction of the samples that use i.
IMPLIED = 0.6


def share_atoms_(atoms: Atoms, codes: SparseCodes, sharing: float) -> None:
    """Give each atom a share of those it goes with: ``d_i ← d_i + sharing Σ_j P(j | i) d_j``.

    The sum is over the pairs of :func:`find_pairs`. Atoms stay of unit norm.

    Parameters
    ----------
    atoms : tensor of shape (m, d)
        Unit atoms, changed in place.
    codes : SparseCodes
        Codes of samples over these atoms.
    sharing : float
        The share.
    """
    i, j, weight = find_pairs(codes)
    weight = weight.to(atoms)
    given = torch.zeros_like(atoms).index_add_(0, i, sharing * weight[:, None] * atoms[j])
    atoms.copy_(normalize(atoms + given, dim=1))


def find_tied(codes: SparseCodes) -> Tensor:
    """Return which atoms go with another or have another go with them, bool of shape (m,)."""
    i, j, _ = find_pairs(codes)
    tied = torch.zeros(codes.n_atoms, dtype=torch.bool, device=codes.values.device)
    tied[torch.cat([i, j])] = True
    return tied


def find_pairs(codes: SparseCodes) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs in which atom i goes with atom j: the i, the j, and P(j | i).

    P(j | i) is the fraction of the samples that use i in which j is used too; it is above
    `IMPLIED`, and j is used more than i.
    """
    m, usage = codes.n_atoms, codes.count_usage()
    pairs = []
    for first in range(codes.indices.shape[1]):
        both = (codes.values[:, first : first + 1] != 0) & (codes.values != 0)
        keys = codes.indices[:, first : first + 1] * m + codes.indices
        pairs.append(keys[both])
    keys, together = torch.cat(pairs).unique(return_counts=True)
    i, j = keys // m, keys % m
    weight = together / usage[i]
    is_kept = (weight > IMPLIED) & (usage[j] > usage[i])
    return i[is_kept], j[is_kept], weight[is_kept]
