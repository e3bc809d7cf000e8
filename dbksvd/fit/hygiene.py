"""Atoms that do not earn their place, and what takes it."""

from __future__ import annotations

import torch
from torch import Tensor

from dbksvd.shapes import Activations, Atoms

# Two samples of a larger cosine would make two atoms of one direction.
SAMPLE_COSINE = 0.9
# Bounds the matrix of cosines between candidates to 64 MiB.
MOST_CANDIDATES = 4096


def find_duplicates(atoms: Atoms, usage: Tensor, max_cosine: float, nonnegative: bool) -> Tensor:
    """Return which atoms have a more used double (of equals, a lower one), bool of shape (m,).

    Doubles have |cos| above `max_cosine`; cos, where codes are non-negative, since d and −d then
    say different things.
    """
    order = torch.argsort(usage, descending=True, stable=True)
    cosines = atoms[order] @ atoms[order].T
    close = (cosines if nonnegative else cosines.abs_()) > max_cosine
    doubled = torch.empty(len(atoms), dtype=torch.bool, device=atoms.device)
    doubled[order] = torch.tril(close, diagonal=-1).any(dim=1)
    return doubled


def choose_replacements(residual: Activations, count: int) -> Atoms:
    """Return unit directions of the worst residuals, at most `count`, no two alike."""
    energy = torch.linalg.vector_norm(residual, dim=1)
    worst = torch.topk(energy, min(4 * count, MOST_CANDIDATES, len(residual))).indices
    directions = residual[worst[energy[worst] > 0]]
    directions = directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    alike = (directions @ directions.T).abs().gt(SAMPLE_COSINE).cpu()
    chosen: list[int] = []
    for row in range(len(directions)):
        if len(chosen) == count:
            break
        if not alike[row, chosen].any():
            chosen.append(row)
    return directions[chosen]


def replace_atoms_(
    atoms: Atoms,
    usage: Tensor,
    residual: Activations,
    *,
    min_usage: int,
    max_cosine: float,
    nonnegative: bool,
) -> tuple[int, int]:
    """Replace unused and duplicate atoms by the worst reconstructed samples' residuals, in place.

    Parameters
    ----------
    atoms : tensor of shape (m, d)
        Unit atoms.
    usage : int64 tensor of shape (m,)
        Samples of the batch that use each atom.
    residual : tensor of shape (n, d)
        What the batch leaves unexplained.
    min_usage : int
        An atom that fewer samples use counts as unused.
    max_cosine : float
        Cosine above which two atoms are duplicates; the more used one stays.
    nonnegative : bool
        Whether codes are non-negative.

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
    new = choose_replacements(residual, len(places))
    places = places[: len(new)]
    atoms[places] = new
    return int(unused[places].sum()), int((doubled & ~unused)[places].sum())
