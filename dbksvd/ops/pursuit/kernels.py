"""Numba kernels of the pursuits; they release the interpreter lock and use one thread.

Products and Gram rows keep the dtype of the samples; the k × k systems are solved in float64,
where their time does not count. Legend: see :mod:`dbksvd.ops.pursuit.reference`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import intrinsic

from dbksvd.ops.compiling import FAST, compile_allocating, compile_kernel

# One block of products with its block of a Gram row stays in the first-level cache.
BLOCK = 128
STEPS_PER_ATOM = 4


@intrinsic
def fast_max(_context, a, b):  # type: ignore[no-untyped-def]
    """Return max(a, b) as LLVM's maxnum, the form of a maximum that LLVM vectorises."""

    def generate(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        from llvmlite import ir

        kind = arguments[0].type
        function = builder.module.declare_intrinsic(
            "llvm.maxnum", [kind], ir.FunctionType(kind, [kind, kind])
        )
        return builder.call(function, arguments, fastmath=("nnan", "ninf", "nsz"))

    return a(a, b), generate


@compile_kernel(fastmath=FAST)
def measure_rows(x, norms):
    """Set norms ← the norm of each row of x in float64; return the least and largest max |x_i|.

    Rows of zeros do not count for the least one.
    """
    least = largest = x.dtype.type(0)
    for n in range(len(x)):
        row = x[n]
        top = x.dtype.type(0)
        total = 0.0
        for i in range(row.size):
            top = fast_max(top, abs(row[i]))  # type: ignore[call-arg]
            total += np.float64(row[i]) * np.float64(row[i])
        norms[n] = np.sqrt(total)
        largest = max(largest, top)
        if top > 0 and (least == 0 or top < least):
            least = top
    return least, largest


@compile_kernel(fastmath=FAST)
def subtract_row(p, v, g, nonnegative):
    """Set p ← p − v g; return the lowest index of the largest |p| (p), or −1."""
    best = p.dtype.type(0)
    start = 0
    for low in range(0, p.size, BLOCK):
        block = p[low : low + BLOCK]
        row = g[low : low + BLOCK]
        top = p.dtype.type(0)
        if nonnegative:
            for i in range(block.size):
                q = block[i] - v * row[i]
                block[i] = q
                top = fast_max(top, q)  # type: ignore[call-arg]
        else:
            for i in range(block.size):
                q = block[i] - v * row[i]
                block[i] = q
                top = fast_max(top, abs(q))  # type: ignore[call-arg]
        if top > best:
            best = top
            start = low
    for i in range(start, min(start + BLOCK, p.size)):
        if (p[i] if nonnegative else abs(p[i])) == best:
            return i if best > 0 else -1
    return -1


# What is known of a slot from the last solve: nothing; that it was left out; that its atom has a
# row of the factor; that its atom was in the span of the atoms before it.
UNKNOWN, LEFT_OUT, IN_FACTOR, DEPENDENT = -1, 0, 1, 2


class Solver(NamedTuple):
    """Room for the systems of a sample; `known`, L, rows and `forward` go from solve to solve."""

    passive: np.ndarray
    barred: np.ndarray
    L: np.ndarray
    rows: np.ndarray
    known: np.ndarray
    forward: np.ndarray
    y: np.ndarray
    s: np.ndarray


@compile_allocating()
def make_solver(k):
    """Return room for systems of k slots, all of them passive."""
    return Solver(
        np.ones(k, np.bool_),
        np.zeros(k, np.bool_),
        np.empty((k, k)),
        np.empty(k, np.int64),
        np.empty(k, np.int8),
        np.empty(k),
        np.empty(k),
        np.empty(k),
    )


@compile_kernel(fastmath=FAST)
def solve_support(gram, b, size, dependent, solver, s):
    """Set s ← least squares on the passive atoms; atoms in the span of earlier ones get 0.

    The factor L, its `rows` and `forward`, the result of the forward substitution, are those of the
    last solve of this sample up to the first slot whose `known` state changes, and made from there
    on: supports grow by one atom at a time. `known` is `UNKNOWN` before the first solve.
    """
    passive, L, rows = solver.passive, solver.L, solver.rows
    known, forward, y = solver.known, solver.forward, solver.y
    count = first = 0
    while first < size and known[first] != UNKNOWN and (known[first] != LEFT_OUT) == passive[first]:
        count += known[first] == IN_FACTOR
        first += 1
    start = count
    for i in range(first, size):
        known[i] = LEFT_OUT
        if not passive[i]:
            continue
        for a in range(count):
            total = gram[i, rows[a]]
            for c in range(a):
                total -= L[count, c] * L[a, c]
            L[count, a] = total / L[a, a]
        pivot = gram[i, i]
        for a in range(count):
            pivot -= L[count, a] * L[count, a]
        known[i] = DEPENDENT
        if pivot > dependent:
            L[count, count] = np.sqrt(pivot)
            rows[count] = i
            known[i] = IN_FACTOR
            count += 1
    for i in range(size, known.size):
        known[i] = UNKNOWN
    for a in range(start, count):
        total = b[rows[a]]
        for c in range(a):
            total -= L[a, c] * forward[rows[c]]
        forward[rows[a]] = total / L[a, a]
    for i in range(size):
        s[i] = 0.0
    # row by row of L, which lie in one piece, and not by its columns
    for a in range(count):
        y[a] = forward[rows[a]]
    for a in range(count - 1, -1, -1):
        y[a] /= L[a, a]
        s[rows[a]] = y[a]
        for c in range(a):
            y[c] -= L[a, c] * y[a]


@compile_kernel()
def fit_nonnegative(gram, b, z, size, dependent, zero, solver):
    """Set z ← argmin over z ≥ 0 of ½ zᵀGz − bᵀz, by Lawson and Hanson's active set, from z ≥ 0."""
    passive, barred, s = solver.passive, solver.barred, solver.s
    for i in range(size):
        passive[i] = z[i] > 0
        barred[i] = False
    newest = -1
    for _ in range(10 * size + 10):
        solve_support(gram, b, size, dependent, solver, s)
        step = 1.0
        blocked = False
        for i in range(size):
            if passive[i] and s[i] <= 0:
                blocked = True
                step = min(step, z[i] / (z[i] - s[i]) if z[i] > 0 else 0.0)
        for i in range(size):
            if passive[i] and s[i] <= 0 and (z[i] <= 0 or z[i] / (z[i] - s[i]) <= step):
                passive[i] = False
                z[i] = 0.0
                # an atom that leaves as it comes would come again for ever
                barred[i] = barred[i] or i == newest
            elif passive[i]:
                z[i] += step * (s[i] - z[i])
        newest = -1
        if blocked:
            continue
        best = zero
        for i in range(size):
            if not passive[i] and not barred[i]:
                slope = b[i]
                for c in range(size):
                    slope -= gram[i, c] * z[c]
                if slope > best:
                    best = slope
                    newest = i
        if newest < 0:
            return
        passive[newest] = True


@compile_kernel()
def write_codes(support, z, size, indices, values):
    """Write the non-zero coefficients to the front of a row; the rest is index 0, value 0."""
    used = 0
    for i in range(size):
        value = values.dtype.type(z[i])
        if value != 0:
            indices[used] = support[i]
            values[used] = value
            used += 1
    for i in range(used, indices.size):
        indices[i] = 0
        values[i] = 0


@compile_kernel(fastmath=FAST)
def subtract_worth(p, v, g, costs, scale, floor, nonnegative, gains):
    """Set p ← p − v g; return the lowest index of the largest p² − scale · costs above 0, or −1.

    Only atoms with |p| (p where `nonnegative`) above `floor` are eligible. `gains` is room for as
    many float64 as there are atoms.
    """
    best = 0.0
    none = 0.0
    start = -1
    for first in range(0, p.size, BLOCK):
        block = p[first : first + BLOCK]
        row = g[first : first + BLOCK]
        cost = costs[first : first + BLOCK]
        out = gains[first : first + BLOCK]
        top = 0.0
        if nonnegative:
            for i in range(block.size):
                q = block[i] - v * row[i]
                block[i] = q
                gain = np.float64(q) * q - scale * cost[i]
                gain = gain if q > floor else none
                out[i] = gain
                top = fast_max(top, gain)  # type: ignore[call-arg]
        else:
            for i in range(block.size):
                q = block[i] - v * row[i]
                block[i] = q
                gain = np.float64(q) * q - scale * cost[i]
                gain = gain if abs(q) > floor else none
                out[i] = gain
                top = fast_max(top, gain)  # type: ignore[call-arg]
        if top > best:
            best = top
            start = first
    if start >= 0:
        for i in range(start, min(start + BLOCK, p.size)):
            if gains[i] == best:
                return i
    return -1


@compile_allocating()
def match(
    products, norms, floors, G, k, nonnegative, refit, rtol, dependent, costs, indices, values
):
    """Code a block of samples by matching pursuit; `products` (rows, m) is overwritten.

    `costs` (m,) are the penalties, or of size 0 where there are none.
    """
    room = np.empty(k, np.int64), np.empty((k, k)), np.empty(k), np.empty(k), np.empty(costs.size)
    rules = k, nonnegative, refit, rtol, dependent
    match_rows(products, norms, floors, G, costs, rules, room, make_solver(k), indices, values)


@compile_kernel()
def match_rows(products, norms, floors, G, costs, rules, room, solver, indices, values):
    """Do :func:`match` in the room it has made."""
    k, nonnegative, refit, rtol, dependent = rules
    support, gram, b, z, gains = room
    for n in range(len(products)):
        p = products[n]
        size = 0
        solver.known[:] = UNKNOWN
        energy = norms[n] * norms[n]
        common = (costs, energy, floors[n], nonnegative, gains)
        if costs.size:
            j = subtract_worth(p, p.dtype.type(0), G[0], *common)
        else:
            j = subtract_row(p, p.dtype.type(0), G[0], nonnegative)
        for _ in range(STEPS_PER_ATOM * k):
            if j < 0 or abs(p[j]) <= floors[n]:
                break
            v = p[j]
            slot = 0
            while slot < size and support[slot] != j:
                slot += 1
            if slot == size:
                support[size] = j
                z[size] = 0.0
                # x·d_j: what the residual has of the atom, and what the atoms so far explain of it
                b[size] = v
                for i in range(size):
                    gram[size, i] = gram[i, size] = G[j, support[i]]
                    b[size] += z[i] * gram[size, i]
                gram[size, size] = G[j, j]
                size += 1
            z[slot] += v
            energy -= np.float64(v) * v
            if size == k or (rtol > 0 and energy <= (rtol * norms[n]) ** 2):
                break
            if costs.size:
                j = subtract_worth(p, v, G[j], *common)
            else:
                j = subtract_row(p, v, G[j], nonnegative)
        if refit and nonnegative:
            zero = 1e-12 * norms[n]
            fit_nonnegative(gram, b, z, size, dependent, zero, solver)
        elif refit:
            solve_support(gram, b, size, dependent, solver, z)
        write_codes(support, z, size, indices[n], values[n])
