"""Atoms that are given back what is theirs of the atoms they always come with.

If feature r fires with exactly one of c_1 … c_q, samples hold r + c_i and never r alone. In their
span the best directions for the q + 1 features are their projections, all at the same cosine to
the feature, where neighbours have a cosine of 1/q with r. Growth instead gives r the mean of
r + c_i, and c_i what that leaves, at a right angle to it: a share of r is missing in c_i.
"""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from dbksvd.codes import SparseCodes
from dbksvd.shapes import Atoms

# Atom j goes with atom i if it is used by more than this fraction of the samples that use i.
IMPLIED = 0.6


def share_atoms_(atoms: Atoms, codes: SparseCodes, sharing: float) -> None:
    """Give each atom a share of those it goes with: ``d_i ← d_i + sharing Σ_j P(j | i) d_j``.

    The sum is over the atoms j, used more than i, with P(j | i) > `IMPLIED`: P is the fraction of
    the samples that use i in which j is used too. Atoms stay of unit norm.

    Parameters
    ----------
    atoms : tensor of shape (m, d)
        Unit atoms, changed in place.
    codes : SparseCodes
        Codes of samples over these atoms.
    sharing : float
        The share.
    """
    m, usage = len(atoms), codes.count_usage()
    pairs = []
    for first in range(codes.indices.shape[1]):
        both = (codes.values[:, first : first + 1] != 0) & (codes.values != 0)
        keys = codes.indices[:, first : first + 1] * m + codes.indices
        pairs.append(keys[both])
    keys, together = torch.cat(pairs).unique(return_counts=True)
    i, j = keys // m, keys % m
    weight = together / usage[i]
    is_kept = (weight > IMPLIED) & (usage[j] > usage[i])
    i, j, weight = i[is_kept], j[is_kept], weight[is_kept].to(atoms)
    given = torch.zeros_like(atoms).index_add_(0, i, sharing * weight[:, None] * atoms[j])
    atoms.copy_(normalize(atoms + given, dim=1))
