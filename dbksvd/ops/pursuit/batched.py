"""Pursuit in plain torch, many samples at once; runs on the CPU and on CUDA.

Legend: see :mod:`dbksvd.ops.pursuit.reference`. Every sample of a block takes each step; those
that have ended take it with coefficient 0. Whether all have ended is asked (a host
synchronisation) only once most can have, and then every few steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dbksvd.ops.pursuit.checks import scale_rows
from dbksvd.ops.pursuit.least_squares import fit_nonnegative, grow_factor, solve_support
from dbksvd.ops.pursuit.reference import STEPS_PER_ATOM, find_tolerances

# Products held at once (elements): bounds the memory, and on the CPU keeps them in cache.
BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 27}
STEPS_BETWEEN_QUESTIONS = 4


def encode(
    x: Tensor, atoms: Tensor, k: int, *, method: str, nonnegative: bool, refit: bool, rtol: float
) -> tuple[Tensor, Tensor]:
    """Return indices and values (n, k); see :func:`dbksvd.sparse_encode`."""
    gram = atoms @ atoms.T
    rows = max(16, BLOCK_ELEMENTS.get(x.device.type, 1 << 20) // len(atoms))
    blocks = []
    for block in x.split(rows):
        scaled, exponents = scale_rows(block)
        if method == "mp":
            support, z = match(scaled, atoms, gram, k, nonnegative, refit, rtol)
        else:
            support, z = match_orthogonally(scaled, atoms, gram, k, nonnegative, rtol)
        values = z.to(x.dtype)
        if exponents is not None:
            values = torch.ldexp(values, exponents)
        blocks.append(pack_codes(support, values))
    return torch.cat([block[0] for block in blocks]), torch.cat([block[1] for block in blocks])


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
    x: Tensor,
    atoms: Tensor,
    gram: Tensor,
    k: int,
    nonnegative: bool,
    refit: bool,
    rtol: float,
) -> tuple[Tensor, Tensor]:
    """Return support and float64 coefficients (n, k) of a block by matching pursuit."""
    zero, dependent = find_tolerances(x.dtype)
    p = x @ atoms.T
    start = p.clone()
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64)
    energy = norm**2
    support = torch.full((len(x), k), -1, device=x.device)
    z = torch.zeros(len(x), k, dtype=torch.float64, device=x.device)
    size = torch.zeros(len(x), 1, dtype=torch.int64, device=x.device)
    running = torch.ones_like(size, dtype=torch.bool)
    for step in range(STEPS_PER_ATOM * k):
        top, j = find_largest(p, nonnegative)
        running &= top > zero * norm
        v = p.gather(1, j).masked_fill(~running, 0)
        slot, is_new = find_slot(support, j, size)
        is_new &= running
        support = torch.where(is_new & (slot_range(k, x) == slot), j, support)
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
    used = slot_range(k, x) < size
    support = support.masked_fill(~used, 0)
    if refit:
        z = fit_block(start, gram, support, used, z, nonnegative, dependent, norm)
    return support, z


def slot_range(k: int, x: Tensor) -> Tensor:
    """Return the slots 0 … k−1 on the device of `x`, shape (1, k)."""
    return torch.arange(k, device=x.device).unsqueeze(0)


def find_slot(support: Tensor, j: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slot that atom j has or would get, and whether it is new to the support."""
    same = support == j
    is_new = ~same.any(dim=1, keepdim=True)
    slot = torch.where(is_new, size, same.to(torch.int8).argmax(dim=1, keepdim=True))
    return slot.clamp_(max=support.shape[1] - 1), is_new


def gather_system(start: Tensor, gram: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """Return G_S (n, k, k) and b = D_S x (n, k) in float64."""
    system = gram[support.unsqueeze(2), support.unsqueeze(1)].double()
    return system, start.gather(1, support).double()


def fit_block(
    start: Tensor,
    gram: Tensor,
    support: Tensor,
    used: Tensor,
    z: Tensor,
    nonnegative: bool,
    dependent: float,
    norm: Tensor,
) -> Tensor:
    """Return the (non-negative) least squares on the used slots, from a feasible z."""
    system, b = gather_system(start, gram, support)
    if nonnegative:
        return fit_nonnegative(system, b, z, used, dependent, 1e-12 * norm)
    return solve_support(system, b, used, dependent)


def match_orthogonally(
    x: Tensor, atoms: Tensor, gram: Tensor, k: int, nonnegative: bool, rtol: float
) -> tuple[Tensor, Tensor]:
    """Return what :func:`match` does, by orthogonal matching pursuit."""
    zero, dependent = find_tolerances(x.dtype)
    start = x @ atoms.T
    p = start.clone()
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64)
    support = torch.zeros(len(x), k, dtype=torch.int64, device=x.device)
    z = torch.zeros(len(x), k, dtype=torch.float64, device=x.device)
    size = torch.zeros(len(x), 1, dtype=torch.int64, device=x.device)
    factor = torch.zeros(len(x), k, k, dtype=torch.float64, device=x.device)
    out = torch.zeros_like(p, dtype=torch.bool)
    running = torch.ones_like(size, dtype=torch.bool)
    slots = slot_range(k, x)
    for step in range(STEPS_PER_ATOM * k):
        top, j = find_largest(p.masked_fill(out, 0), nonnegative)
        running &= top > zero * norm
        out.scatter_(1, j, True)
        place = (slots == size) & running
        row = gram[j, support].double().masked_fill_(slots >= size, 0)
        factor, independent = grow_factor(factor, row, gram[j, j].double(), place, dependent)
        place &= independent
        support = torch.where(place, j, support)
        size += place.any(dim=1, keepdim=True)
        used = slots < size
        z = (
            fit_block(start, gram, support, used, z, nonnegative, dependent, norm)
            if (nonnegative)
            else solve_factor(factor, start.gather(1, support).double(), used)
        )
        p = start - F.embedding_bag(support, gram, per_sample_weights=z.to(p.dtype), mode="sum")
        running &= size < k
        if rtol > 0:
            b = start.gather(1, support).double()
            running &= norm**2 - (z * b).sum(1, keepdim=True) > (rtol * norm) ** 2
        asked = step + 1 >= k and (step + 1 - k) % STEPS_BETWEEN_QUESTIONS == 0
        if asked and not running.any():
            break
    return support.masked_fill(slots >= size, 0), z


def solve_factor(factor: Tensor, b: Tensor, used: Tensor) -> Tensor:
    """Return (L Lᵀ)⁻¹ b on the used slots and 0 elsewhere."""
    diagonal = torch.diag_embed((~used).double())
    solution = torch.cholesky_solve((b * used).unsqueeze(2), factor + diagonal).squeeze(2)
    return solution * used
