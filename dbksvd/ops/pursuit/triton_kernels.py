"""Triton kernels of the pursuits: one program codes one sample.

Legend: see :mod:`dbksvd.ops.pursuit.reference`. Products and Gram rows have the dtype of the
samples; coefficients and what is left of the energy are carried in float64. A row or a Gram matrix
may have more than 2³¹ elements, so offsets of rows are int64.

Per sample come ``floors`` (a product up to it is not picked), ``energies`` (‖x‖²) and
``goals`` (the pursuit ends when ‖r‖² is at most that; −inf where rtol is 0), all float64.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dbksvd.ops.pursuit.triton_least_squares import fit_nonnegative, solve_passive

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
def match(
    products,
    gram,
    floors,
    energies,
    goals,
    supports,
    coefficients,
    m,
    k,
    max_steps,
    NONNEGATIVE: tl.constexpr,
    ON_CHIP: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write support (−1 where unused) and coefficients of a sample by matching pursuit.

    ``ON_CHIP`` keeps the row of products in registers for all picks (``BLOCK`` ≥ m); otherwise it
    is brought up to date in memory, chunk by chunk, in the pass that finds its largest entry.
    """
    sample = tl.program_id(0).to(tl.int64)
    start = products + sample * m
    floor = tl.load(floors + sample)
    energy = tl.load(energies + sample)
    goal = tl.load(goals + sample)
    slots = tl.arange(0, BLOCK_K)
    offsets = tl.arange(0, BLOCK)
    support = tl.full([BLOCK_K], -1, tl.int32)
    z = tl.zeros([BLOCK_K], tl.float64)
    size = 0
    step = 0
    if ON_CHIP:
        p = tl.load(start + offsets, offsets < m, 0.0)
        top, key = find_largest(p, offsets, NONNEGATIVE)
    else:
        top, key = subtract_row(start, gram, 0.0, m, NONNEGATIVE, BLOCK)
    running = top.to(tl.float64) > floor
    while running:
        j = key >> 1
        v = tl.where((key & 1) == 1, -top, top)
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
            if ON_CHIP:
                p -= v * tl.load(row + offsets, offsets < m, 0.0)
                top, key = find_largest(p, offsets, NONNEGATIVE)
            else:
                top, key = subtract_row(start, row, v, m, NONNEGATIVE, BLOCK)
            running = top.to(tl.float64) > floor
    tl.store(supports + sample * k + slots, support, slots < k)
    tl.store(coefficients + sample * k + slots, z, slots < k)


@triton.jit
def scan_products(
    start,
    gram,
    support,
    coefficients,
    size,
    m,
    NONNEGATIVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return what :func:`find_largest` does of D x − G_S z; products of −inf are left out.

    Support and coefficients are read from memory; the products are formed chunk by chunk and
    never written.
    """
    best = tl.full([BLOCK], -1.0, start.dtype.element_ty)
    keys = tl.zeros([BLOCK], tl.int32)
    for low in range(0, m, BLOCK):
        offsets = low + tl.arange(0, BLOCK)
        inside = offsets < m
        p = tl.load(start + offsets, inside, float("-inf"))
        for slot in range(size):
            row = gram + tl.load(support + slot).to(tl.int64) * m
            v = tl.load(coefficients + slot).to(p.dtype)
            p -= v * tl.load(row + offsets, inside, 0.0)
        score = p if NONNEGATIVE else tl.abs(p)
        score = tl.where(p == float("-inf"), -1.0, score)
        better = score > best
        best = tl.where(better, score, best)
        keys = tl.where(better, 2 * offsets + (p < 0).to(tl.int32), keys)
    top = tl.max(best, 0)
    return top, tl.min(tl.where(best == top, keys, LAST), 0)


@triton.jit
def match_orthogonally(
    products,
    gram,
    floors,
    energies,
    goals,
    supports,
    coefficients,
    m,
    k,
    max_steps,
    dependent,
    NONNEGATIVE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write support and coefficients of a sample by orthogonal matching pursuit.

    ``supports`` comes filled with −1, ``coefficients`` with 0. A pick reads the products once and
    one Gram row for each atom of the support; the product of a picked atom is overwritten by −inf.
    """
    sample = tl.program_id(0).to(tl.int64)
    start = products + sample * m
    supports += sample * k
    coefficients += sample * k
    floor = tl.load(floors + sample)
    energy = tl.load(energies + sample)
    goal = tl.load(goals + sample)
    slots = tl.arange(0, BLOCK_K)
    support = tl.full([BLOCK_K], 0, tl.int32)
    z = tl.zeros([BLOCK_K], tl.float64)
    b = tl.zeros([BLOCK_K], tl.float64)
    system = tl.zeros([BLOCK_K, BLOCK_K], tl.float64)
    size = 0
    step = 0
    top, key = scan_products(start, gram, supports, coefficients, 0, m, NONNEGATIVE, BLOCK)
    running = top.to(tl.float64) > floor
    while running:
        j = key >> 1
        row = gram + j.to(tl.int64) * m
        here = slots == size
        g = tl.load(row + support, slots < size, 0.0).to(tl.float64)
        g = tl.where(here, tl.load(row + j).to(tl.float64), g)
        product = tl.load(start + j).to(tl.float64)
        tl.debug_barrier()
        tl.store(start + j, float("-inf"))
        # a slot whose atom turns out dependent is overwritten by the next pick
        system = tl.where(here[:, None], g[None, :], tl.where(here[None, :], g[:, None], system))
        b = tl.where(here, product, b)
        support = tl.where(here, j, support)
        solution, _slope, kept = solve_passive(
            system, b, slots <= size, size + 1, dependent, BLOCK_K
        )
        if tl.max((kept & here).to(tl.int32), 0) == 1:
            size += 1
            if NONNEGATIVE:
                z = fit_nonnegative(system, b, z, slots < size, size, dependent, energy, BLOCK_K)
            else:
                z = solution
            tl.store(supports + slots, support, slots < size)
            tl.store(coefficients + slots, z, slots < size)
        tl.debug_barrier()
        step += 1
        left = energy - tl.sum(tl.where(slots < size, z * b, 0.0), 0)
        running = (size < k) & (step < max_steps) & (left > goal)
        if running:
            top, key = scan_products(
                start, gram, supports, coefficients, size, m, NONNEGATIVE, BLOCK
            )
            running = top.to(tl.float64) > floor
