"""Numba kernel of orthogonal matching pursuit; see :mod:`dbksvd.ops.pursuit.kernels`."""

from __future__ import annotations

import numpy as np
from numba import njit

from dbksvd.ops.pursuit.kernels import (
    BLOCK,
    FAST,
    STEPS_PER_ATOM,
    fit_nonnegative,
    subtract_row,
    write_codes,
)


@njit(nogil=True, cache=True, fastmath=FAST)
def subtract_support(p, start, G, support, z, size):
    """Set p ← start − Σ z_i G_i over the support, writing each block of p once."""
    for low in range(0, p.size, BLOCK):
        block = p[low : low + BLOCK]
        first = start[low : low + BLOCK]
        for i in range(block.size):
            block[i] = first[i]
        for a in range(size):
            v = p.dtype.type(z[a])
            row = G[support[a], low : low + BLOCK]
            for i in range(block.size):
                block[i] -= v * row[i]


@njit(nogil=True, cache=True)
def distance_to_span(gram, size, L):
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


@njit(nogil=True, cache=True)
def solve_factor(L, b, size, z):
    """Set z ← (L Lᵀ)⁻¹ b."""
    for a in range(size):
        total = b[a]
        for c in range(a):
            total -= L[a, c] * z[c]
        z[a] = total / L[a, a]
    for a in range(size - 1, -1, -1):
        total = z[a]
        for c in range(a + 1, size):
            total -= L[c, a] * z[c]
        z[a] = total / L[a, a]


@njit(nogil=True, cache=True)
def match_orthogonally(products, norms, G, k, nonnegative, rtol, zero, dependent, indices, values):
    """Code a block of samples by orthogonal matching pursuit."""
    support, aside = np.empty(k, np.int64), np.empty(4 * k, np.int64)
    gram, L, work = np.empty((k, k)), np.empty((k, k)), np.empty((k, k))
    rows = np.empty(k, np.int64)
    b, z, s = np.empty(k), np.zeros(k), np.empty(k)
    p = np.empty_like(products[0])
    for n in range(len(products)):
        start = products[n]
        p[:] = start
        size = 0
        out = 0
        for _ in range(STEPS_PER_ATOM * k):
            j = subtract_row(p, p.dtype.type(0), G[0], nonnegative)
            if j < 0 or abs(p[j]) <= zero * norms[n]:
                break
            for i in range(size):
                gram[size, i] = gram[i, size] = G[j, support[i]]
            gram[size, size] = G[j, j]
            if distance_to_span(gram, size, L) <= dependent:
                aside[out] = j
                out += 1
                p[j] = 0
                continue
            support[size] = j
            b[size] = start[j]
            z[size] = 0.0
            size += 1
            if nonnegative:
                z[size - 1] = 1e-300  # passive from the first solve on: its slope is positive
                fit_nonnegative(gram, b, z, size, dependent, 1e-12 * norms[n], work, rows, s)
            else:
                solve_factor(L, b, size, z)
            energy = norms[n] * norms[n]
            for i in range(size):
                energy -= z[i] * b[i]
            if size == k or (rtol > 0 and energy <= (rtol * norms[n]) ** 2):
                break
            subtract_support(p, start, G, support, z, size)
            for i in range(size):
                p[support[i]] = 0
            for i in range(out):
                p[aside[i]] = 0
        write_codes(support, z, size, indices[n], values[n])
