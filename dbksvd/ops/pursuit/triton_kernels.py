"""Triton kernels of the pursuits: one program codes one sample.

Legend: see :mod:`dbksvd.ops.pursuit.reference`. Products and Gram rows have the dtype of the
samples; coefficients and what is left of the energy are carried in float64. A row or a Gram matrix
may have more than 2³¹ elements, so offsets of rows are int64.

Per sample come ``floors`` (a product up to it is not picked), ``energies`` (‖x‖²) and
``goals`` (the pursuit ends when ‖r‖² is at most that; −inf where rtol is 0), all float64. The
orthogonal pursuits are in :mod:`dbksvd.ops.pursuit.triton_orthogonal`.
"""

from __future__ import annotations

import triton
import triton.language as tl

# More than any index.
LAST = tl.constexpr(2147483647)


@triton.jit
def find_largest(p, offsets, NONNEGATIVE: tl.constexpr):
    """Return the largest |p| (p), and 2 j + (p_j < 0) of the lowest j that has it."""
    score = p if NONNEGATIVE else tl.abs(p)
    top = tl.max(score, 0)
    keys = 2 * offsets + (p < 0).to(tl.int32)
    return top, tl.min(tl.where(score == top, keys, LAST), 0)


@triton.jit
def split_key(top, key):
    """Return the atom and its product of what :func:`find_largest` found."""
    return key >> 1, tl.where((key & 1) == 1, -top, top)


@triton.jit
def subtract_row(start, row, v, m, NONNEGATIVE: tl.constexpr, BLOCK: tl.constexpr):
    """Set p ← p − v g chunk by chunk in memory; return what :func:`find_largest` does."""
    best = tl.zeros([BLOCK], start.dtype.element_ty)
    keys = tl.zeros([BLOCK], tl.int32)
    for low in range(0, m, BLOCK):
        offsets = low + tl.arange(0, BLOCK)
        inside = offsets < m
        p = tl.load(start + offsets, inside, 0.0)
        p -= v * tl.load(row + offsets, inside, 0.0)
        tl.store(start + offsets, p, inside)
        score = p if NONNEGATIVE else tl.abs(p)
        better = score > best
        best = tl.where(better, score, best)
        keys = tl.where(better, 2 * offsets + (p < 0).to(tl.int32), keys)
    # what one thread wrote another may read in the next pass
    tl.debug_barrier()
    top = tl.max(best, 0)
    return top, tl.min(tl.where(best == top, keys, LAST), 0)


@triton.jit
def weigh_row(
    start, row, v, prices, energy, floor, m, NONNEGATIVE: tl.constexpr, BLOCK: tl.constexpr
):
    """Set p ← p − v g chunk by chunk in memory; return the largest gain, its atom and product.

    The gain of atom j is p_j² − prices_j · energy in float64, or 0 where p_j is not above `floor`.
    """
    best = tl.zeros([BLOCK], tl.float64)
    places = tl.full([BLOCK], LAST, tl.int32)
    for low in range(0, m, BLOCK):
        offsets = low + tl.arange(0, BLOCK)
        inside = offsets < m
        p = tl.load(start + offsets, inside, 0.0)
        p -= v * tl.load(row + offsets, inside, 0.0)
        tl.store(start + offsets, p, inside)
        wide = p.to(tl.float64)
        gain = wide * wide - tl.load(prices + offsets, inside, 0.0) * energy
        gain = tl.where((wide if NONNEGATIVE else tl.abs(wide)) > floor, gain, 0.0)
        better = gain > best
        best = tl.where(better, gain, best)
        places = tl.where(better, offsets, places)
    # what one thread wrote another may read in the next pass, or just below
    tl.debug_barrier()
    top = tl.max(best, 0)
    j = tl.min(tl.where(best == top, places, LAST), 0)
    return top, j, tl.load(start + j, top > 0.0, 0.0)


@triton.jit
def match(
    products,
    gram,
    floors,
    energies,
    goals,
    supports,
    coefficients,
    prices,
    m,
    k,
    max_steps,
    NONNEGATIVE: tl.constexpr,
    PENALISED: tl.constexpr,
    ON_CHIP: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write support (−1 where unused) and coefficients of a sample by matching pursuit.

    ``ON_CHIP`` keeps the row of products in registers for all picks (``BLOCK`` ≥ m); otherwise it
    is brought up to date in memory, chunk by chunk, in the pass that finds its largest entry.
    ``PENALISED``, which is not for ``ON_CHIP``, picks by gains, with float64 ``prices`` (m,).
    """
    sample = tl.program_id(0).to(tl.int64)
    start = products + sample * m
    floor = tl.load(floors + sample)
    whole = tl.load(energies + sample)
    energy = whole
    goal = tl.load(goals + sample)
    slots = tl.arange(0, BLOCK_K)
    offsets = tl.arange(0, BLOCK)
    support = tl.full([BLOCK_K], -1, tl.int32)
    z = tl.zeros([BLOCK_K], tl.float64)
    size = 0
    step = 0
    if PENALISED:
        top, j, v = weigh_row(start, gram, 0.0, prices, whole, floor, m, NONNEGATIVE, BLOCK)
        running = top > 0.0
    else:
        if ON_CHIP:
            p = tl.load(start + offsets, offsets < m, 0.0)
            top, key = find_largest(p, offsets, NONNEGATIVE)
        else:
            top, key = subtract_row(start, gram, 0.0, m, NONNEGATIVE, BLOCK)
        j, v = split_key(top, key)
        running = top.to(tl.float64) > floor
    while running:
        same = support == j
        is_new = tl.max(same.to(tl.int32), 0) == 0
        here = same | (is_new & (slots == size))
        support = tl.where(here, j, support)
        z += tl.where(here, v.to(tl.float64), 0.0)
        size += is_new.to(tl.int32)
        step += 1
        energy -= v.to(tl.float64) * v.to(tl.float64)
        running = (size < k) & (step < max_steps) & (energy > goal)
        if running:
            row = gram + j.to(tl.int64) * m
            if PENALISED:
                top, j, v = weigh_row(start, row, v, prices, whole, floor, m, NONNEGATIVE, BLOCK)
                running = top > 0.0
            else:
                if ON_CHIP:
                    p -= v * tl.load(row + offsets, offsets < m, 0.0)
                    top, key = find_largest(p, offsets, NONNEGATIVE)
                else:
                    top, key = subtract_row(start, row, v, m, NONNEGATIVE, BLOCK)
                j, v = split_key(top, key)
                running = top.to(tl.float64) > floor
    tl.store(supports + sample * k + slots, support, slots < k)
    tl.store(coefficients + sample * k + slots, z, slots < k)
