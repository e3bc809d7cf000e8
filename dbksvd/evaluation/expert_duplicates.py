"""How often the experts of a Switch SAE learn the same atom."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from dbksvd.base.shapes import Atoms


@torch.no_grad()
def measure_expert_duplicates(
    atoms: Atoms, n_experts: int, threshold: float = 0.9, *, rows: int = 1024
) -> float:
    """Return the fraction of atoms that have a near twin in another expert.

    A twin is an atom of a cosine above `threshold`.

    Parameters
    ----------
    atoms : floating tensor of shape (m, d)
        Decoder rows; the first m/E belong to the first expert, and so on.
    n_experts : int
        E, a divisor of m.
    threshold : float
        Cosine above which two atoms count as twins.
    rows : int
        Atoms compared with all others at a time (bounds the memory at rows · m).

    Raises
    ------
    ValueError
        If `n_experts` does not divide m.

    References
    ----------
    Mudide et al. (2024): 5–10 % of latents in their experiments.
    """
    if n_experts < 1 or len(atoms) % n_experts:
        raise ValueError(f"n_experts: expected a divisor of {len(atoms)} atoms, got {n_experts}")
    unit = F.normalize(atoms, dim=1)
    expert = torch.arange(len(atoms), device=atoms.device) // (len(atoms) // n_experts)
    twins = 0
    for block, own in zip(unit.split(rows), expert.split(rows), strict=True):
        near = (block @ unit.T > threshold) & (own.unsqueeze(1) != expert)
        twins += int(near.any(dim=1).sum())
    return twins / len(atoms)
