"""Directions for new atoms, found in the residual of a dictionary, the most general first.

A k-means lets new atoms compete for samples: where a feature fires only with another (a child with
its parent), each cluster becomes a mixture of features. Here each candidate climbs alone, so that
all samples of a general feature pull at it, whatever else fires in them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dbksvd.base.shapes import Activations, Atoms
from dbksvd.fit.grown.plan import CLIMBS

# A candidate with fewer samples above its limit does not move.
MIN_USES = 10
# In its first steps a candidate is far from any feature, and few products are above the threshold:
# its limit is then at most the 95 % quantile of its products.
FIRST_CLIMBS = 3
FIRST_SHARE = 0.95
QUANTILE_ROWS = 4096
# A candidate is kept if its gain is at least this fraction of the largest.
KEPT_GAIN = 0.6
# Two candidates with a larger cosine are taken for the same.
CANDIDATE_COSINE = 0.3


def find_general_atoms(
    residual: Activations, count: int, threshold: float, starts: int, generator: torch.Generator
) -> Atoms:
    """Return at most `count` unit directions that explain most of a residual.

    Each of `starts` random rows climbs: ``d ← Σ_i p_i r_i / ‖…‖`` over the rows with
    ``p_i = r_i·d > threshold``. The gain of a direction is ``Σ p_i²`` over these rows. A residual
    of zeros gives no direction.

    Parameters
    ----------
    residual : tensor of shape (n, d)
        Residuals of n samples under the atoms so far.
    count : int
        Most directions that are returned.
    threshold : float
        Least product that pulls, in the unit of the samples.
    starts : int
        Number of candidates.
    generator : torch.Generator
        Draws the rows that candidates start from.
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
            limits = limits.minimum(find_quantiles(products[:QUANTILE_ROWS], FIRST_SHARE))
        products *= products > limits
        moved = torch.nn.functional.normalize(products.T @ residual, dim=1)
        is_pulled = (products > 0).sum(dim=0) >= MIN_USES
        candidates = torch.where(is_pulled[:, None], moved, candidates)
    products = residual @ candidates.T
    gains = (products * (products > threshold)).square().sum(dim=0)
    return choose_apart(candidates, gains, count)


def find_quantiles(products: Tensor, share: float) -> Tensor:
    """Return ``products.quantile(share, dim=0)``, for a share near 1 in a fifth of its time.

    Parameters
    ----------
    products : tensor of shape (n, starts)
        Numbers.
    share : float
        From 0 to 1; between two numbers the quantile is interpolated.
    """
    rank = float(torch.tensor(share, dtype=products.dtype) * (len(products) - 1))
    below = int(rank)
    top = products.T.contiguous().topk(len(products) - below, dim=1).values
    above = top[:, max(0, top.shape[1] - 2)]
    return top[:, -1].lerp(above, rank - below)


def choose_apart(candidates: Activations, gains: Tensor, count: int) -> Atoms:
    """Return the candidates with the largest gains, at most `count`, no two of them alike."""
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
