"""Orthogonal pursuits of a block of samples; see :mod:`dbksvd.ops.pursuit.batched`."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dbksvd.ops.pursuit.batched_matching import (
    STEPS_BETWEEN_QUESTIONS,
    find_largest,
    slot_range,
)
from dbksvd.ops.pursuit.least_squares import fit_block, grow_factor
from dbksvd.ops.pursuit.tolerances import STEPS_PER_ATOM, find_tolerances


def match_orthogonally(
    start: Tensor,
    gram: Tensor,
    norm: Tensor,
    floor: Tensor,
    k: int,
    nonnegative: bool,
    rtol: float,
    is_recursive: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pursue a block of samples by omp, or by ols.

    Parameters
    ----------
    start, gram, norm, floor, k, nonnegative, rtol
        As of :func:`dbksvd.ops.pursuit.batched_matching.match`, whose result this returns too.
    is_recursive : bool
        Whether to pick by orthogonal least squares.
    """
    _, dependent = find_tolerances(start.dtype)
    p = start.clone()
    distances = torch.diagonal(gram).expand_as(p).contiguous() if is_recursive else None
    support = torch.zeros(len(p), k, dtype=torch.int64, device=p.device)
    z = torch.zeros(len(p), k, dtype=torch.float64, device=p.device)
    size = torch.zeros(len(p), 1, dtype=torch.int64, device=p.device)
    factor = torch.zeros(len(p), k, k, dtype=torch.float64, device=p.device)
    out = torch.zeros_like(p, dtype=torch.bool)
    running = torch.ones_like(size, dtype=torch.bool)
    slots = slot_range(k, p)
    for step in range(STEPS_PER_ATOM * k):
        if distances is None:
            top, j = find_largest(p.masked_fill_(out, 0), nonnegative)
        else:
            out |= distances <= dependent
            top, j = find_steepest(p.masked_fill_(out, 0), distances, floor, nonnegative)
        running &= top > floor
        out.scatter_(1, j, True)
        place = (slots == size) & running
        row = gram[j, support].double().masked_fill_(slots >= size, 0)
        factor, independent = grow_factor(factor, row, gram[j, j].double(), place, dependent)
        place &= independent
        support = torch.where(place, j, support)
        size += place.any(dim=1, keepdim=True)
        used = slots < size
        b = start.gather(1, support).double()
        z = (
            fit_block(b, gram, support, used, z, nonnegative, dependent, norm)
            if nonnegative
            else solve_factor(factor, b, used)
        )
        p = start - add_rows(gram, support, z)
        if distances is not None:
            distances -= add_rows(gram, support, invert_row(factor, used, place)) ** 2
        running &= size < k
        if rtol > 0:
            running &= norm**2 - (z * b).sum(1, keepdim=True) > (rtol * norm) ** 2
        asked = step + 1 >= k and (step + 1 - k) % STEPS_BETWEEN_QUESTIONS == 0
        if asked and not running.any():
            break
    return support.masked_fill(~used, 0), used, z


def find_steepest(
    p: Tensor, distances: Tensor, floor: Tensor, nonnegative: bool
) -> tuple[Tensor, Tensor]:
    """Return |p| of the atoms of largest p² / distances, and their lowest indices, (n, 1).

    Where no product is above the floor, |p| is 0 and the index has no meaning.

    Parameters
    ----------
    p : tensor of shape (n, m)
        Products of the residuals with the atoms.
    distances : tensor of shape (n, m)
        Squared distances of the atoms to the spans of the supports.
    floor : float64 tensor of shape (n, 1)
        Products up to this are not eligible.
    nonnegative : bool
        Whether only positive products are eligible.
    """
    eligible = (p if nonnegative else p.abs()) > floor
    scores = torch.where(eligible, p**2 / distances, 0)
    j = scores.max(dim=1, keepdim=True).indices
    return p.gather(1, j).abs().masked_fill(~eligible.gather(1, j), 0), j


def add_rows(gram: Tensor, support: Tensor, weights: Tensor) -> Tensor:
    """Return Σ_i weights_i G_{S_i} of each sample, (n, m)."""
    weights = weights.to(gram.dtype)
    return F.embedding_bag(support, gram, per_sample_weights=weights, mode="sum")


def invert_row(factor: Tensor, used: Tensor, place: Tensor) -> Tensor:
    """Return the row of L⁻¹ at the slot that `place` marks, zeros where it marks none.

    The row holds the weights of the atoms whose sum is the newest orthonormal vector q.
    """
    whole = factor + torch.diag_embed((~used).double())
    unit = place.double().unsqueeze(2)
    return torch.linalg.solve_triangular(whole.mT, unit, upper=True).squeeze(2)


def solve_factor(factor: Tensor, b: Tensor, used: Tensor) -> Tensor:
    """Return (L Lᵀ)⁻¹ b on the used slots and 0 elsewhere."""
    diagonal = torch.diag_embed((~used).double())
    solution = torch.cholesky_solve((b * used).unsqueeze(2), factor + diagonal).squeeze(2)
    return solution * used


# By orthogonal least squares.
match_optimally = partial(match_orthogonally, is_recursive=True)
