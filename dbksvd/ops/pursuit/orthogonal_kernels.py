"""Numba kernel of the orthogonal pursuits, omp and ols; see :mod:`dbksvd.ops.pursuit.kernels`.

Legend, beyond that of the reference: L (k, k) the Cholesky factor of G_S, q_i the orthonormal
vectors that Gram and Schmidt make of the atoms of S in their order, u_i = D q_i, c_i = q_i·x, e_j
the squared distance of atom j to the span of S (ols), or 0 if it may no longer be picked (omp).
The u_i of a sample are kept (k·m numbers a thread), tile by tile: a step reads them from the
second-level cache where it would have to read as many rows of the Gram matrix from memory.
"""

from __future__ import annotations

import numpy as np

from dbksvd.ops.compiling import FAST, compile_allocating, compile_kernel
from dbksvd.ops.pursuit.kernels import (
    BLOCK,
    STEPS_PER_ATOM,
    UNKNOWN,
    fast_max,
    fit_nonnegative,
    make_solver,
    write_codes,
)

# Atoms updated at once at most: what is written stays in the first-level cache while all u_i stream
# by. Tiles are of equal width, and rows of one are set apart by a gap, so that a power of two does
# not bring all of them to the same places of the cache.
TILE = 2048
GAP = 16
# Rows u_i that are added in one go; there are always that many, with weight 0 if need be.
ROWS = 8


@compile_kernel(fastmath=FAST)
def subtract_rows(to, rows, weights, size):
    """Set to ← to − Σ weights_i rows_i over the first `size` rows, rounded up to `ROWS`."""
    for a in range(0, size, ROWS):
        w0, w1, w2, w3 = weights[a], weights[a + 1], weights[a + 2], weights[a + 3]
        w4, w5, w6, w7 = weights[a + 4], weights[a + 5], weights[a + 6], weights[a + 7]
        for i in range(to.size):
            first = (w0 * rows[a, i] + w1 * rows[a + 1, i]) + (
                w2 * rows[a + 2, i] + w3 * rows[a + 3, i]
            )
            second = (w4 * rows[a + 4, i] + w5 * rows[a + 5, i]) + (
                w6 * rows[a + 6, i] + w7 * rows[a + 7, i]
            )
            to[i] -= first + second


# numpy's error model: a check for a zero divisor would keep the loops from being vectorised
@compile_kernel(fastmath=FAST, error_model="numpy")
def judge(p, e, recursive, nonnegative, floor, dependent):
    """Return p² / e (|p| for omp) of one atom, 0 if it is not eligible."""
    none = floor - floor  # of their dtype
    size = p if nonnegative else abs(p)
    size = size if size > floor else none
    if recursive:
        size = size * size / fast_max(e, dependent)  # type: ignore[call-arg]
    return size if e > dependent else none


@compile_kernel(fastmath=FAST, error_model="numpy")
def score_tile(p, e, scores, rule):
    """Set the scores of a tile; return the largest, and where its block of atoms begins."""
    best, start = p.dtype.type(0), 0
    for low in range(0, p.size, BLOCK):
        products, squares = p[low : low + BLOCK], e[low : low + BLOCK]
        block = scores[low : low + BLOCK]
        top = p.dtype.type(0)
        for i in range(block.size):
            score = judge(products[i], squares[i], *rule)
            block[i] = score
            top = fast_max(top, score)  # type: ignore[call-arg]
        if top > best:
            best, start = top, low
    return best, start


@compile_kernel(fastmath=FAST, error_model="numpy")
def update_tile(p, e, scores, start, g, u, work, size, weights, steps, scale, step, rule):
    """Make the tile of u_size, bring p and e up to date, and do as :func:`score_tile`.

    u ← scale (g − Σ weights_i u_i); e ← e − u² (ols); p ← p − step u, where non-negative from
    p = start − Σ steps_i u_i, for non-negative least squares may have changed all steps.
    """
    recursive, nonnegative = rule[:2]
    # not made in place: the compiler must see that it does not overlap the rows it is made of
    new, row = work[: p.size], u[size]
    for i in range(p.size):
        new[i] = g[i]
    subtract_rows(new, u, weights, size)
    if nonnegative:
        for i in range(p.size):
            p[i] = start[i]
        subtract_rows(p, u, steps, size)
    for i in range(p.size):
        row[i] = scale * new[i]
        p[i] -= step * row[i]
    if recursive:
        for i in range(p.size):
            e[i] -= row[i] * row[i]
    return score_tile(p, e, scores, rule)


@compile_kernel()
def find_place(scores, start, best):
    """Return the lowest index of `best`, which is in the block that begins at `start`; or −1."""
    for i in range(start, scores.size):
        if scores[i] == best:
            return i if best > 0 else -1
    return -1


@compile_kernel()
def find_best(p, e, scores, rule):
    """Return the best eligible atom, or −1."""
    best, start = score_tile(p, e, scores, rule)
    return find_place(scores, start, best)


@compile_kernel()
def update_best(p, e, scores, start, g, u, work, size, L, c, weights, steps, rule):
    """Update p and e by the atom at `size`, tile by tile; return the best eligible atom, or −1."""
    kind = p.dtype.type
    for a in range(len(weights)):
        weights[a] = L[size, a] if a < size else 0.0
        steps[a] = c[a] if a < size else 0.0
    scale, step = kind(1 / L[size, size]), kind(c[size])
    best, place = kind(0), 0
    for tile in range(len(u)):
        low = tile * work.size
        high = min(low + work.size, p.size)
        top, start_of_top = update_tile(
            *(p[low:high], e[low:high], scores[low:high], start[low:high], g[low:high]),
            *(u[tile], work, size, weights, steps, scale, step, rule),
        )
        if top > best:
            best, place = top, low + start_of_top
    return find_place(scores, place, best)


@compile_kernel(fastmath=FAST)
def grow_factor(gram, size, L):
    """Grow the Cholesky factor by row `size` of `gram`; return the squared pivot."""
    pivot = gram[size, size]
    for a in range(size):
        total = gram[size, a]
        for c in range(a):
            total -= L[size, c] * L[a, c]
        L[size, a] = total / L[a, a]
        pivot -= L[size, a] * L[size, a]
    L[size, size] = np.sqrt(max(pivot, 0.0))
    return pivot


@compile_kernel(fastmath=FAST)
def project_sample(L, b, size, c):
    """Set c_size ← q_size·x, by one step of the forward substitution L c = b."""
    total = b[size]
    for a in range(size):
        total -= L[size, a] * c[a]
    c[size] = total / L[size, size]


@compile_kernel(fastmath=FAST)
def solve_transposed(L, c, size, z):
    """Set z ← L⁻ᵀ c: from coefficients of the q to those of the atoms."""
    for a in range(size):
        z[a] = c[a]
    for a in range(size - 1, -1, -1):
        z[a] /= L[a, a]
        for i in range(a):
            z[i] -= L[a, i] * z[a]


@compile_kernel(fastmath=FAST)
def multiply_transposed(L, z, size, c):
    """Set c ← Lᵀ z: from coefficients of the atoms to those of the q."""
    for a in range(size):
        c[a] = 0.0
        for i in range(a + 1):
            c[i] += L[a, i] * z[a]


@compile_allocating()
def match_orthogonally(
    products, norms, floors, G, k, recursive, nonnegative, rtol, dependent, indices, values
):
    """Code a block of samples by orthogonal matching pursuit, or least squares if `recursive`."""
    kind, m, padded = products.dtype, len(G), k + ROWS - k % ROWS
    tiles = (m + TILE - 1) // TILE
    wide = (m + tiles - 1) // tiles
    systems = np.empty(k, np.int64), np.empty((k, k)), np.empty((k, k)), np.empty(k)
    fits = np.empty(k), np.zeros(k), np.empty(padded, kind), np.empty(padded, kind)
    u = np.zeros((tiles, padded, wide + GAP), kind), np.empty(wide, kind)
    scores = np.diag(G).copy(), np.empty(m, kind), np.empty(m, kind), np.empty(m, kind)
    rules = k, recursive, nonnegative, rtol, dependent
    room, solver = (systems, fits, u, scores), make_solver(k)
    match_rows_orthogonally(products, norms, floors, G, rules, room, solver, indices, values)


@compile_kernel()
def match_rows_orthogonally(products, norms, floors, G, rules, room, solver, indices, values):
    """Do :func:`match_orthogonally` in the room it has made."""
    kind = products.dtype.type
    k, recursive, nonnegative, rtol, dependent = rules
    systems, fits, (u, tile), (corners, p, e, scores) = room
    support, gram, L, b = systems
    c, z, weights, steps = fits
    for n in range(len(products)):
        start = products[n]
        for i in range(p.size):
            p[i] = start[i]
            e[i] = corners[i]
        size = 0
        solver.known[:] = UNKNOWN
        energy = norms[n] * norms[n]
        rule = (recursive, nonnegative, kind(floors[n]), kind(dependent))
        j = find_best(p, e, scores, rule)
        for _ in range(STEPS_PER_ATOM * k):
            if j < 0:
                break
            e[j] = 0
            for i in range(size):
                gram[size, i] = gram[i, size] = G[j, support[i]]
            gram[size, size] = G[j, j]
            if grow_factor(gram, size, L) <= dependent:
                j = find_best(p, e, scores, rule)
                continue
            support[size] = j
            b[size] = start[j]
            z[size] = 0.0
            size += 1
            if nonnegative:
                z[size - 1] = 1e-300  # passive from the first solve on: its slope is positive
                zero = 1e-12 * norms[n]
                fit_nonnegative(gram, b, z, size, dependent, zero, solver)
                multiply_transposed(L, z, size, c)
                energy = norms[n] * norms[n]
                for i in range(size):
                    energy -= z[i] * b[i]
            else:
                project_sample(L, b, size - 1, c)
                energy -= c[size - 1] * c[size - 1]
            if size == k or (rtol > 0 and energy <= (rtol * norms[n]) ** 2):
                break
            j = update_best(
                p, e, scores, start, G[j], u, tile, size - 1, L, c, weights, steps, rule
            )
        if not nonnegative:
            solve_transposed(L, c, size, z)
        write_codes(support, z, size, indices[n], values[n])
