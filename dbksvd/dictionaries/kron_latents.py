"""Latents of KronSAE from the factors of its heads: combined, gathered, and the largest chosen.

Legend: h heads, m the base and n the extension of a head; latent (i, j) of head g has the index
(g·m + i)·n + j. Factors are a tensor (samples, h, m + n).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Products of two factors that exist at once, in elements (16 MiB of float32).
BLOCK_ELEMENTS = 1 << 22
# The slope of √(pq) has no bound at 0: smaller latents get the slope of a latent of this size. The
# paper's √(pq + 1e-5) has the same largest slope, but gives inactive latents the value 0.003.
SMALLEST_SLOPE_LATENT = 1e-5**0.5


class _Mand(torch.autograd.Function):
    """√(pq) where both are positive, else exactly 0, with a bounded slope."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor) -> Tensor:
        z = torch.where((p > 0) & (q > 0), p * q, 0).sqrt()
        ctx.save_for_backward(p, q, z)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        p, q, z = ctx.saved_tensors
        slope = gradient / (2 * z.clamp(min=SMALLEST_SLOPE_LATENT))
        slope = slope.masked_fill(z == 0, 0)
        return slope * q, slope * p


def combine_by_mand(p: Tensor, q: Tensor) -> Tensor:
    """Return mAND of two tensors of one shape: √(p q) where both are > 0, else exactly 0.

    The gradient is ``∂z/∂p = q / (2 max(z, √1e-5))`` where z > 0 and 0 elsewhere: exact for
    z ≥ √1e-5 (0.0032, in the scaled units of training), bounded below.
    """
    return _Mand.apply(p, q)


def find_columns(latents: Tensor, base: int, per_head: int) -> tuple[Tensor, Tensor]:
    """Return the columns of the two factors of latents among the h·(m + n) factors of a sample.

    Parameters
    ----------
    latents : int64 tensor
        Indices of latents.
    base : int
        m.
    per_head : int
        m + n.
    """
    extension = per_head - base
    row = latents // extension  # g·m + i
    start = (row // base) * per_head
    return start + row % base, start + base + latents % extension


def gather_factors(factors: Tensor, base: int, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two factors (n, k) of latents (n, k), from factors (n, h, m + n)."""
    p, q = find_columns(latents, base, factors.shape[2])
    flat = factors.flatten(1)
    return flat.gather(1, p), flat.gather(1, q)


def select_latents(factors: Tensor, base: int, k: int, *, signed: bool) -> Tensor:
    """Return the latents (n, k) of the k largest products, largest first, exactly.

    Only the k heads with the largest best product can hold one of the k largest (proof in
    ``README.md``), so at most min(k, h)·m·n products of a sample are formed, and `BLOCK_ELEMENTS`
    at a time.

    Parameters
    ----------
    factors : floating tensor of shape (n, h, m + n)
        The m and n factors of each head.
    base : int
        m.
    k : int
        Latents chosen per sample.
    signed : bool
        Whether factors can be negative. Products ≤ 0 are then chosen arbitrarily, and only where
        there are fewer than k positive ones.
    """
    n_heads, per_head = factors.shape[1:]
    extension = per_head - base
    kept, size = min(k, n_heads), base * extension
    chosen = []
    for rows in factors.split(max(1, BLOCK_ELEMENTS // (kept * size))):
        p, q = rows[..., :base], rows[..., base:]
        best = p.amax(dim=2) * q.amax(dim=2)
        if signed:
            # the product of two factors of unlike signs is not positive: no latent is active
            best = torch.where((p.amax(dim=2) > 0) & (q.amax(dim=2) > 0), best, 0)
            low_p, low_q = p.amin(dim=2), q.amin(dim=2)
            best = torch.where((low_p < 0) & (low_q < 0), best.maximum(low_p * low_q), best)
        heads = best.topk(kept, dim=1, sorted=False).indices
        at = heads.unsqueeze(2)
        p = p.gather(1, at.expand(-1, -1, base))
        q = q.gather(1, at.expand(-1, -1, extension))
        places = (p.unsqueeze(3) * q.unsqueeze(2)).flatten(1).topk(k, dim=1).indices
        chosen.append(heads.gather(1, places // size) * size + places % size)
    return torch.cat(chosen)


def select_among(factors: Tensor, base: int, candidates: Tensor, k: int) -> Tensor:
    """Return the latents (n, k) of the k largest products among some candidates.

    Products are formed `BLOCK_ELEMENTS` at a time and merged with the largest so far.

    Parameters
    ----------
    factors : floating tensor of shape (n, h, m + n)
        The m and n factors of each head.
    base : int
        m.
    candidates : int64 tensor of shape (c,)
        Indices of latents, at least k.
    k : int
        Latents chosen per sample.
    """
    n = len(factors)
    width = max(k, BLOCK_ELEMENTS // max(n, 1))
    best = factors.new_empty(n, 0)
    latents = candidates.new_empty(n, 0)
    flat = factors.flatten(1)
    for block in candidates.split(width):
        p, q = find_columns(block, base, factors.shape[2])
        merged = torch.cat([best, flat[:, p] * flat[:, q]], dim=1)
        best, places = merged.topk(min(k, merged.shape[1]), dim=1)
        latents = torch.cat([latents, block.expand(n, -1)], dim=1).gather(1, places)
    return latents
