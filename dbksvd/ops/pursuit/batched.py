"""Pursuit in plain torch, many samples at once; runs on the CPU and on CUDA.

Legend: see :mod:`dbksvd.ops.pursuit.reference`. Every sample of a block takes each step; those
that have ended take it with coefficient 0. Whether all have ended is asked (a host
synchronisation) only once most can have, and then every few steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dbksvd.ops.memory import map_blocks
from dbksvd.ops.pursuit.checks import scale_rows
from dbksvd.ops.pursuit.least_squares import fit_nonnegative, grow_factor, solve_support
from dbksvd.ops.pursuit.reference import (
    STEPS_PER_ATOM,
    find_floors,
    find_tolerances,
    square_scales,
)

# Products held at once (elements): bounds the memory, and on the CPU keeps them in cache.
BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 27}
STEPS_BETWEEN_QUESTIONS = 4


def encode(
    x: Tensor,
    atoms: Tensor,
    k: int,
    *,
    method: str,
    nonnegative: bool,
    refit: bool,
    rtol: float,
    product_dtype: str | None = None,
    threshold: float = 0.0,
    penalties: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return indices and values (n, k); see :func:`dbksvd.sparse_encode`."""
    m, d = atoms.shape
    gram = atoms @ atoms.T
    pursuits: dict[str, Callable[..., tuple[Tensor, Tensor, Tensor]]]
    pursuits = {"mp": match, "omp": match_orthogonally, "ols": match_optimally}
    pursue = pursuits[method]
    refit = needs_fit(method, refit, product_dtype)
    _, dependent = find_tolerances(x.dtype)

    def encode_block(rows: slice) -> tuple[Tensor, Tensor]:
        scaled, exponents = scale_rows(x[rows])
        start = multiply(scaled, atoms, product_dtype)
        norm = torch.linalg.vector_norm(scaled, dim=1, keepdim=True, dtype=torch.float64)
        floor = find_floors(norm.squeeze(1), x.dtype, threshold, exponents).unsqueeze(1)
        if penalties is None:
            support, used, z = pursue(start, gram, norm, floor, k, nonnegative, rtol)
        else:
            costs = square_scales(exponents, len(scaled)).to(penalties)[:, None] * penalties
            support, used, z = match(start, gram, norm, floor, k, nonnegative, rtol, costs)
        if refit:
            b = multiply_support(scaled, atoms, start, support, product_dtype)
            z = fit_block(b, gram, support, used, z, nonnegative, dependent, norm)
        values = z.to(x.dtype)
        if exponents is not None:
            values = torch.ldexp(values, exponents)
        return pack_codes(support, values)

    block = max(16, BLOCK_ELEMENTS.get(x.device.type, 1 << 20) // m)
    parts = map_blocks(encode_block, len(x), block, f"n={len(x)}, m={m}, d={d}")
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def multiply(x: Tensor, atoms: Tensor, product_dtype: str | None) -> Tensor:
    """Return X Dᵀ in the dtype of `x`, multiplied in bfloat16 where `product_dtype` says so."""
    if product_dtype is None:
        return x @ atoms.T
    return (x.bfloat16() @ atoms.bfloat16().T).to(x.dtype)


def multiply_support(
    x: Tensor, atoms: Tensor, products: Tensor, support: Tensor, product_dtype: str | None
) -> Tensor:
    """Return D_S x (n, k): taken from the products (n, m) unless those are rounded."""
    if product_dtype is None:
        return products.gather(1, support)
    return torch.stack([(atoms[column] * x).sum(1) for column in support.T], 1)


def needs_fit(method: str, refit: bool, product_dtype: str | None) -> bool:
    """Return whether a fit follows; that of omp and ols is exact unless products are rounded."""
    return refit if method == "mp" else product_dtype is not None


def pack_codes(support: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Bring the non-zero slots of each row to the front, in order; the rest is index 0, value 0."""
    order = (values == 0).to(torch.int8).argsort(dim=1, stable=True)
    values = values.gather(1, order)
    return support.gather(1, order).masked_fill(values == 0, 0), values


def find_largest(p: Tensor, nonnegative: bool) -> tuple[Tensor, Tensor]:
    """Return the largest |p| (p) of each row and the lowest index that has it, shapes (n, 1)."""
    # torch.max promises the first index among equals
    return (p if nonnegative else p.abs()).max(dim=1, keepdim=True)


def match(
    start: Tensor,
    gram: Tensor,
    norm: Tensor,
    floor: Tensor,
    k: int,
    nonnegative: bool,
    rtol: float,
    costs: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pursue a block of samples by matching pursuit.

    Parameters
    ----------
    start : tensor of shape (n, m)
        Products of the samples with the atoms.
    gram : tensor of shape (m, m)
        Products of the atoms.
    norm : float64 tensor of shape (n, 1)
        Norms of the samples.
    floor : float64 tensor of shape (n, 1)
        Products up to this are not picked.
    costs : float64 tensor of shape (n, m), optional
        Penalties of the atoms, at the scale of each sample.

    Returns
    -------
    tuple
        Support, whether a slot of it is used, and float64 coefficients, all (n, k).
    """
    p = start.clone()
    energy = norm**2
    support = torch.full((len(p), k), -1, device=p.device)
    z = torch.zeros(len(p), k, dtype=torch.float64, device=p.device)
    size = torch.zeros(len(p), 1, dtype=torch.int64, device=p.device)
    running = torch.ones_like(size, dtype=torch.bool)
    slots = slot_range(k, p)
    for step in range(STEPS_PER_ATOM * k):
        if costs is None:
            top, j = find_largest(p, nonnegative)
            running &= top > floor
        else:
            j, is_worthy = find_worthiest(p, costs, floor, nonnegative)
            running &= is_worthy
        v = p.gather(1, j).masked_fill(~running, 0)
        slot, is_new = find_slot(support, j, size)
        is_new &= running
        support = torch.where(is_new & (slots == slot), j, support)
        z.scatter_add_(1, slot, v.double())
        size += is_new
        energy -= v.double() ** 2
        running &= size < k
        if rtol > 0:
            running &= energy > (rtol * norm) ** 2
        asked = step + 1 >= k and (step + 1 - k) % STEPS_BETWEEN_QUESTIONS == 0
        if asked and not running.any():
            break
        p.addcmul_(v, gram[j.squeeze(1)], value=-1)
    used = slots < size
    return support.masked_fill(~used, 0), used, z


def slot_range(k: int, p: Tensor) -> Tensor:
    """Return the slots 0 … k−1 on the device of `p`, shape (1, k)."""
    return torch.arange(k, device=p.device).unsqueeze(0)


def find_slot(support: Tensor, j: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slot that atom j has or would get, and whether it is new to the support."""
    same = support == j
    is_new = ~same.any(dim=1, keepdim=True)
    slot = torch.where(is_new, size, same.to(torch.int8).argmax(dim=1, keepdim=True))
    return slot.clamp_(max=support.shape[1] - 1), is_new


def fit_block(
    b: Tensor,
    gram: Tensor,
    support: Tensor,
    used: Tensor,
    z: Tensor,
    nonnegative: bool,
    dependent: float,
    norm: Tensor,
) -> Tensor:
    """Return the (non-negative) least squares on the used slots, from a feasible z; b is D_S x."""
    system = gram[support.unsqueeze(2), support.unsqueeze(1)].double()
    if nonnegative:
        return fit_nonnegative(system, b.double(), z, used, dependent, 1e-12 * norm)
    return solve_support(system, b.double(), used, dependent)


def match_optimally(
    start: Tensor,
    gram: Tensor,
    norm: Tensor,
    floor: Tensor,
    k: int,
    nonnegative: bool,
    rtol: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what :func:`match` does, by orthogonal least squares."""
    return match_orthogonally(start, gram, norm, floor, k, nonnegative, rtol, is_recursive=True)


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
    """Return what :func:`match` does, by orthogonal matching pursuit (or ols: `is_recursive`)."""
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


def find_worthiest(
    p: Tensor, costs: Tensor, floor: Tensor, nonnegative: bool
) -> tuple[Tensor, Tensor]:
    """Return the lowest index of the largest p² − costs, and whether it is positive, (n, 1)."""
    eligible = (p if nonnegative else p.abs()) > floor
    gain, j = torch.where(eligible, p.double() ** 2 - costs, 0).max(dim=1, keepdim=True)
    return j, gain > 0


def find_steepest(
    p: Tensor, distances: Tensor, floor: Tensor, nonnegative: bool
) -> tuple[Tensor, Tensor]:
    """Return |p| of the atoms of largest p² / distances, and the lowest index that has it, (n, 1).

    Where no product is above the floor, the atom is any.
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
    """Return the row of L⁻¹ at the slot that `place` marks: q as a sum of atoms; 0 if nowhere."""
    whole = factor + torch.diag_embed((~used).double())
    unit = place.double().unsqueeze(2)
    return torch.linalg.solve_triangular(whole.mT, unit, upper=True).squeeze(2)


def solve_factor(factor: Tensor, b: Tensor, used: Tensor) -> Tensor:
    """Return (L Lᵀ)⁻¹ b on the used slots and 0 elsewhere."""
    diagonal = torch.diag_embed((~used).double())
    solution = torch.cholesky_solve((b * used).unsqueeze(2), factor + diagonal).squeeze(2)
    return solution * used
