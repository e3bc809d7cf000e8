"""Co-active atoms: which they are, and the share of them that each atom is given.

With n_i the samples that use atom i, and n_ij those that use i and j, the conditional probability
of j given i is ``P(j | i) = n_ij / n_i``. The pair (i, j) is co-active if P(j | i) is above
`LEAST_PROBABILITY` and j is used more often than i: an atom of a child feature and that of its
parent. Both atoms of such a pair are co-active atoms.

Why a share: if feature r fires with exactly one of c_1 … c_q, samples hold r + c_i and never r
alone. In the span of these samples the best directions for the q + 1 features are the projections
of the features. All have the same cosine to their feature, and that of r has a cosine of 1 / q with
that of each c_i. Growth instead gives r the mean of r + c_i, and c_i the rest, which is at a right
angle to that mean: a share of r is missing in c_i.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dbksvd.base.codes import SparseCodes
from dbksvd.base.shapes import Atoms

LEAST_PROBABILITY = 0.6
# Pairs of atoms of which each has a counter (0.5 GiB); of more, those that occur are sorted.
MOST_COUNTED = 1 << 26


def share_atoms_(atoms: Atoms, codes: SparseCodes, share: float) -> None:
    """Give each atom a share of its co-active atoms: ``d_i ← d_i + share Σ_j P(j | i) d_j``.

    The sum is over the pairs (i, j) of :func:`find_coactive_pairs`. Atoms stay of unit norm.

    Parameters
    ----------
    atoms : tensor of shape (m, d)
        Unit atoms, changed in place.
    codes : SparseCodes
        Codes of samples over these atoms.
    share : float
        The factor before the sum.
    """
    i, j, probability = find_coactive_pairs(codes)
    weight = share * probability.to(atoms)
    given = torch.zeros_like(atoms).index_add_(0, i, weight[:, None] * atoms[j])
    atoms.copy_(normalize(atoms + given, dim=1))


def find_coactive(codes: SparseCodes) -> Tensor:
    """Return which atoms are in a co-active pair, bool of shape (m,)."""
    i, j, _ = find_coactive_pairs(codes)
    is_coactive = torch.zeros(codes.n_atoms, dtype=torch.bool, device=codes.values.device)
    is_coactive[torch.cat([i, j])] = True
    return is_coactive


def find_coactive_pairs(codes: SparseCodes) -> tuple[Tensor, Tensor, Tensor]:
    """Return i, j and P(j | i) of all co-active pairs, each of shape (pairs,)."""
    m, usage = codes.n_atoms, codes.count_usage()
    if m * m <= MOST_COUNTED:
        counts = usage.new_zeros(m * m)
        for part in _list_keys(codes):
            counts += torch.bincount(part, minlength=m * m)
        keys = torch.nonzero(counts).squeeze(1)
        together = counts[keys]
    else:
        keys, together = torch.cat(list(_list_keys(codes))).unique(return_counts=True)
    i, j = keys // m, keys % m
    probability = together / usage[i]
    is_kept = (probability > LEAST_PROBABILITY) & (usage[j] > usage[i])
    return i[is_kept], j[is_kept], probability[is_kept]


def _list_keys(codes: SparseCodes) -> Iterator[Tensor]:
    """Yield i · m + j of all pairs of atoms that a sample uses, slot by slot of i."""
    used = codes.values != 0
    wide = int(used.sum(dim=1).max()) if len(codes) else 0  # used slots come first
    for first in range(wide):
        rows = torch.nonzero(used[:, first]).squeeze(1)
        keys = codes.indices[rows, first, None] * codes.n_atoms + codes.indices[rows, :wide]
        yield keys[used[rows, :wide]]
