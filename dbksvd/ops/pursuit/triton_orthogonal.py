"""Triton kernel of the orthogonal pursuits, omp and ols: one program codes one sample.

Legend: see :mod:`dbksvd.ops.pursuit.reference`. Arguments are as in
:mod:`dbksvd.ops.pursuit.triton_kernels`, but floors have the dtype of the samples, rounded down.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dbksvd.ops.pursuit.triton_kernels import LAST
from dbksvd.ops.pursuit.triton_least_squares import fit_nonnegative

# Gram rows in flight while one is added.
STAGES = tl.constexpr(3)


@triton.jit
def scan_products(
    start,
    gram,
    supports,
    coefficients,
    weights,
    before,
    distances,
    floor,
    dependent,
    size,
    m,
    RECURSIVE: tl.constexpr,
    NONNEGATIVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return the largest score of an eligible atom (0 if none is) and the lowest atom that has it.

    With p = D x − G_S z the score of omp is |p| (p); products of −inf are left out. That of ols
    (``RECURSIVE``) is p² / e, with e ← before − u² written to `distances` and u the sum of the
    same Gram rows by `weights`. Products are formed chunk by chunk and never written.
    """
    kind = start.dtype.element_ty
    best = tl.zeros([BLOCK], kind)
    places = tl.full([BLOCK], LAST, tl.int32)
    for low in range(0, m, BLOCK):
        offsets = low + tl.arange(0, BLOCK)
        inside = offsets < m
        p = tl.load(start + offsets, inside, 0.0)
        u = tl.zeros([BLOCK], kind)
        for slot in tl.range(0, size, num_stages=STAGES):
            row = gram + tl.load(supports + slot).to(tl.int64) * m
            g = tl.load(row + offsets, inside, 0.0)
            p -= tl.load(coefficients + slot).to(kind) * g
            if RECURSIVE:
                u += tl.load(weights + slot).to(kind) * g
        score = p if NONNEGATIVE else tl.abs(p)
        if RECURSIVE:
            e = tl.load(before + offsets, inside, 0.0) - u * u
            tl.store(distances + offsets, e, inside)
            is_eligible = (score > floor) & (e > dependent)
            score = p * p / tl.where(is_eligible, e, 1.0)
        else:
            is_eligible = (score > floor) & (p != float("-inf"))
        score = tl.where(is_eligible, score, 0.0)
        better = score > best
        best = tl.where(better, score, best)
        places = tl.where(better, offsets, places)
    top = tl.max(best, 0)
    return top, tl.min(tl.where(best == top, places, LAST), 0)


@triton.jit
def match_orthogonally(
    products,
    gram,
    corners,
    floors,
    energies,
    goals,
    supports,
    coefficients,
    weights,
    distances,
    m,
    k,
    max_steps,
    dependent,
    RECURSIVE: tl.constexpr,
    NONNEGATIVE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write support and coefficients of a sample by omp, or by ols where ``RECURSIVE``.

    ``supports`` comes filled with −1, ``coefficients`` with 0; ``corners`` (m,) is the diagonal of
    the Gram matrix, and ``weights`` (n, k) is scratch. omp overwrites the product of a picked atom
    by −inf; ols keeps the squared distances e of its sample in ``distances`` (n, m), and no atom
    comes again whose e is 0.

    The rows of ``basis`` are L⁻¹: the weights of the atoms of S whose sums are the orthonormal q_i.
    With l_i = q_i·d_j, a pick adds the row w = (1_j − Lᵀ⁻¹ l) / √(‖d_j‖² − l·l), and (w·b) w to the
    least-squares fit; b = D_S x. No system is solved, but where non-negative the fit has an entry
    that is not positive.
    """
    sample = tl.program_id(0).to(tl.int64)
    start = products + sample * m
    supports += sample * k
    coefficients += sample * k
    weights += sample * k
    if RECURSIVE:
        distances += sample * m
    floor = tl.load(floors + sample)
    energy = tl.load(energies + sample)
    goal = tl.load(goals + sample)
    slots = tl.arange(0, BLOCK_K)
    support = tl.full([BLOCK_K], 0, tl.int32)
    z = tl.zeros([BLOCK_K], tl.float64)
    fit = tl.zeros([BLOCK_K], tl.float64)
    b = tl.zeros([BLOCK_K], tl.float64)
    basis = tl.zeros([BLOCK_K, BLOCK_K], tl.float64)
    size = 0
    step = 0
    top, j = scan_products(
        start,
        gram,
        supports,
        coefficients,
        weights,
        corners,
        distances,
        floor,
        dependent,
        0,
        m,
        RECURSIVE,
        NONNEGATIVE,
        BLOCK,
    )
    running = top > 0.0
    while running:
        row = gram + j.to(tl.int64) * m
        g = tl.load(row + support, slots < size, 0.0).to(tl.float64)
        product = tl.load(start + j).to(tl.float64)
        corner = tl.load(corners + j).to(tl.float64)
        tl.debug_barrier()
        if RECURSIVE:
            tl.store(distances + j, 0.0)
        else:
            tl.store(start + j, float("-inf"))
        along = tl.sum(basis * g[None, :], 1)
        pivot = corner - tl.sum(along * along, 0)
        take = pivot > dependent
        # a slot whose atom turns out dependent is overwritten by the next pick
        here = slots == size
        scale = tl.where(take, 1.0 / tl.sqrt(tl.where(take, pivot, 1.0)), 0.0)
        w = tl.where(here, 1.0, -tl.sum(basis * along[:, None], 0)) * scale
        basis = tl.where(here[:, None], w[None, :], basis)
        b = tl.where(here, product, b)
        support = tl.where(here, j, support)
        tl.store(supports + size, j, take)
        fit += tl.sum(w * b, 0) * w
        size += take.to(tl.int32)
        used = slots < size
        if NONNEGATIVE:
            tl.debug_barrier()
            if tl.min(tl.where(used, fit, 1.0), 0) > 0.0:
                z = fit
            else:
                z = fit_nonnegative(gram, m, supports, b, z, used, size, dependent, energy, BLOCK_K)
        else:
            z = fit
        tl.store(coefficients + slots, z, used)
        tl.store(weights + slots, w, used)
        tl.debug_barrier()
        step += 1
        left = energy - tl.sum(tl.where(used, z * b, 0.0), 0)
        running = (size < k) & (step < max_steps) & (left > goal)
        if running:
            top, j = scan_products(
                start,
                gram,
                supports,
                coefficients,
                weights,
                distances,
                distances,
                floor,
                dependent,
                size,
                m,
                RECURSIVE,
                NONNEGATIVE,
                BLOCK,
            )
            running = top > 0.0
