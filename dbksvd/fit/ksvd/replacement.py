"""Unused and duplicate atoms, and the samples that replace them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dbksvd.base.shapes import Activations, Atoms
from dbksvd.ops.ranks import ALONE, Ranks

# Two samples of a larger cosine would make two atoms of one direction.
SAMPLE_COSINE = 0.9
# Bounds the matrix of cosines between candidates to 64 MiB.
MOST_CANDIDATES = 4096
# Atoms whose cosines with all before them are made at once: 0.5 GiB at m = 65,536.
BLOCK_ATOMS = 2048


def find_duplicates(atoms: Atoms, usage: Tensor, max_cosine: float, nonnegative: bool) -> Tensor:
    """Return which atoms have a duplicate that more samples use, bool of shape (m,).

    Of two that are used equally, the lower one stays.

    Parameters
    ----------
    atoms : tensor of shape (m, d)
        Unit atoms.
    usage : int64 tensor of shape (m,)
        Samples that use each atom.
    max_cosine : float
        Two atoms are duplicates where |cos| is larger.
    nonnegative : bool
        Whether codes are non-negative. Then cos counts, not |cos|: d and −d code different samples.
    """
    order = torch.argsort(usage, descending=True, stable=True)
    sorted_atoms = atoms[order]
    doubled = torch.empty(len(atoms), dtype=torch.bool, device=atoms.device)
    for start in range(0, len(atoms), BLOCK_ATOMS):
        rows = slice(start, min(start + BLOCK_ATOMS, len(atoms)))
        cosines = sorted_atoms[rows] @ sorted_atoms[: rows.stop].T
        close = (cosines if nonnegative else cosines.abs_()) > max_cosine
        doubled[order[rows]] = close.tril_(diagonal=start - 1).any(dim=1)
    return doubled


def choose_replacements(residual: Activations, count: int, ranks: Ranks = ALONE) -> Atoms:
    """Return unit directions of the largest residuals, at most `count`, no two alike."""
    directions = gather_worst(residual, min(4 * count, MOST_CANDIDATES), ranks)
    directions = directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    alike = (directions @ directions.T).abs().gt(SAMPLE_COSINE).cpu().numpy()
    free = np.ones(len(directions), dtype=bool)
    chosen: list[int] = []
    for row, others in enumerate(alike):
        if len(chosen) == count:
            break
        if free[row]:
            chosen.append(row)
            free &= ~others
    return directions[chosen]


def gather_worst(residual: Activations, count: int, ranks: Ranks = ALONE) -> Atoms:
    """Return the `count` rows of largest norm of all ranks, the largest first, without zeros.

    Ranks sum tables in which only one of them has an entry: first of `count` norms each, then of
    the chosen rows.
    """
    energy = torch.linalg.vector_norm(residual, dim=1)
    own = torch.topk(energy, min(count, len(residual)))
    if ranks.size == 1:
        return residual[own.indices[own.values > 0]]
    norms = energy.new_zeros(ranks.size, count)
    norms[ranks.rank, : len(own.values)] = own.values
    norms, places = ranks.sum_(norms).flatten().sort(descending=True, stable=True)
    places = places[:count][norms[:count] > 0]
    rows = residual.new_zeros(len(places), residual.shape[1])
    mine = torch.nonzero(places // count == ranks.rank).squeeze(1)
    rows[mine] = residual[own.indices[places[mine] % count]]
    return ranks.sum_(rows)


def replace_atoms_(
    atoms: Atoms,
    usage: Tensor,
    residual: Activations,
    *,
    min_usage: int,
    max_cosine: float,
    nonnegative: bool,
    ranks: Ranks = ALONE,
) -> tuple[int, int]:
    """Replace unused and duplicate atoms by the worst reconstructed samples' residuals, in place.

    Parameters
    ----------
    atoms : tensor of shape (m, d)
        Unit atoms.
    usage : int64 tensor of shape (m,)
        Samples of the batch, on all ranks, that use each atom.
    residual : tensor of shape (n, d)
        What the batch, or this rank's share of it, leaves unexplained.
    min_usage : int
        An atom that fewer samples use counts as unused.
    max_cosine : float
        Cosine above which two atoms are duplicates; the more used one stays.
    nonnegative : bool
        Whether codes are non-negative.
    ranks : Ranks
        Who has the other samples; all choose the same.

    Returns
    -------
    tuple of int
        Atoms replaced because unused, and because duplicate. Fewer are replaced than found where
        too few samples have a residual.
    """
    doubled = find_duplicates(atoms, usage, max_cosine, nonnegative)
    unused = usage < min_usage
    places = torch.nonzero(unused | doubled).squeeze(1)
    if len(places) == 0:
        return 0, 0
    new = choose_replacements(residual, len(places), ranks)
    places = places[: len(new)]
    atoms[places] = new
    return int(unused[places].sum()), int((doubled & ~unused)[places].sum())
