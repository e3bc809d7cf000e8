"""Directions for new atoms, found one by one in what a dictionary leaves, the general first.

A k-means lets new atoms compete for samples: where features come with others (a child never
without its parent), each cluster becomes a combination. Here every candidate climbs alone, so that
all samples of a general feature pull at it, whatever else they hold.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dbksvd.base.shapes import Activations, Atoms

# A candidate that fewer samples pull at stays as it is.
MIN_USES = 10
CLIMBS = 10
# First steps, in which a candidate is far from any feature: it may then have the best 5 %.
FIRST_CLIMBS = 3
FIRST_SHARE = 0.95
QUANTILE_ROWS = 4096
# Of the candidates, those that explain at least this fraction of what the best one does.
KEPT_GAIN = 0.6
# Candidates of a larger cosine are taken for one.
CANDIDATE_COSINE = 0.3


def find_general_atoms(
    residual: Activations, count: int, threshold: float, starts: int, generator: torch.Generator
) -> Atoms:
    """Return at most `count` unit directions that explain most of a residual; none of a zero one.

    Each of `starts` random rows climbs: ``d ← Σ_i p_i r_i / ‖…‖`` over the rows with
    ``p_i = r_i·d > threshold``. The gain of a direction is ``Σ p_i²`` over these rows.

    Parameters
    ----------
    residual : tensor of shape (n, d)
        What the atoms so far leave of n samples.
    count : int
        Most directions.
    threshold : float
        In the unit of the samples.
    starts : int
        Candidates.
    generator : torch.Generator
        Draws the rows to start from.
    """
    places = torch.randperm(len(residual), generator=generator)[:starts].to(residual.device)
    candidates = torch.nn.functional.normalize(residual[places], dim=1)
    candidates = candidates[torch.linalg.vector_norm(candidates, dim=1) > 0]
    if not len(candidates):
        return candidates
    for climb in range(CLIMBS):
        products = residual @ candidates.T
        limits = torch.full_like(products[0], threshold)
        if climb < FIRST_CLIMBS:
            limits = limits.minimum(products[:QUANTILE_ROWS].quantile(FIRST_SHARE, dim=0))
        products *= products > limits
        moved = torch.nn.functional.normalize(products.T @ residual, dim=1)
        is_pulled = (products > 0).sum(dim=0) >= MIN_USES
        candidates = torch.where(is_pulled[:, None], moved, candidates)
    products = residual @ candidates.T
    gains = (products * (products > threshold)).square().sum(dim=0)
    return choose_apart(candidates, gains, count)


def choose_apart(candidates: Activations, gains: Tensor, count: int) -> Atoms:
    """Return the candidates of the largest gains, at most `count`, no two alike."""
    order = gains.argsort(descending=True, stable=True).tolist()
    alike = (candidates @ candidates.T > CANDIDATE_COSINE).cpu()
    enough = KEPT_GAIN * gains[order[0]]
    chosen: list[int] = []
    for place in order:
        if len(chosen) == count or (chosen and gains[place] < enough):
            break
        if not alike[place, chosen].any():
            chosen.append(place)
    return candidates[chosen]
