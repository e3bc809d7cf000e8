"""Numba kernels of the atom update; they release the interpreter lock and use one thread.

Legend: see :mod:`dbksvd.ops.atom_update.reference`. Entries are the used slots sorted by atom and
then by sample; those of atom j are ``offsets[j] : offsets[j + 1]``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# No NaN comes in and none is made, so sums may be vectorised.
FAST = {"nnan", "ninf", "nsz", "contract", "reassoc"}


@njit(nogil=True, cache=True)
def index_entries(indices, values, n_atoms):
    """Return offsets (m + 1), samples and slots of the used slots, by counting sort."""
    n, k = indices.shape
    offsets = np.zeros(n_atoms + 1, np.int64)
    for i in range(n):
        for c in range(k):
            if values[i, c] != 0:
                offsets[indices[i, c] + 1] += 1
    for j in range(n_atoms):
        offsets[j + 1] += offsets[j]
    following = offsets[:-1].copy()
    samples = np.empty(offsets[-1], np.int32)
    slots = np.empty(offsets[-1], np.int32)
    for i in range(n):
        for c in range(k):
            if values[i, c] != 0:
                place = following[indices[i, c]]
                following[indices[i, c]] += 1
                samples[place] = i
                slots[place] = c
    return offsets, samples, slots


@njit(nogil=True, cache=True, fastmath=FAST)
def dot(a, b):
    """Return a · b."""
    total = a.dtype.type(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(nogil=True, cache=True, fastmath=FAST)
def add_scaled(a, v, b):
    """a ← a + v b."""
    for i in range(a.size):
        a[i] += v * b[i]


@njit(nogil=True, cache=True, fastmath=FAST)
def add_two_scaled(a, v, b, w, c):
    """a ← a + v b + w c."""
    for i in range(a.size):
        a[i] += v * b[i] + w * c[i]


@njit(nogil=True, cache=True)
def improve_atom(R, samples, z, d, iterations, nonnegative, new_d, new_z, g, trial_d, trial_z):
    """Power iterations on E = R[samples] + z dᵀ, which is never formed.

    Each iteration is one pass over the rows of R: a row is multiplied with the new atom, and, hot
    in cache, added to Eᵀz for the next iteration.
    """
    zero = d.dtype.type(0)
    new_d[:] = d
    new_z[:] = z
    g[:] = zero
    for e in range(z.size):
        add_scaled(g, z[e], R[samples[e]])
    add_scaled(g, dot(z, z), d)
    for iteration in range(iterations):
        norm = np.sqrt(dot(g, g))
        if norm == 0:
            break
        inverse = d.dtype.type(1) / norm
        for i in range(d.size):
            trial_d[i] = g[i] * inverse
            g[i] = zero
        along = dot(d, trial_d)
        is_last = iteration + 1 == iterations
        any_left = False
        overlap = zero
        for e in range(z.size):
            row = R[samples[e]]
            value = dot(row, trial_d) + z[e] * along
            if nonnegative and value < 0:
                value = zero
            any_left = any_left or value != 0
            trial_z[e] = value
            if not is_last:
                add_scaled(g, value, row)
                overlap += value * z[e]
        if not any_left:
            break
        add_scaled(g, overlap, d)
        new_d[:] = trial_d
        new_z[:] = trial_z
    if not nonnegative and dot(new_d, d) < 0:
        for i in range(d.size):
            new_d[i] = -new_d[i]
        for e in range(z.size):
            new_z[e] = -new_z[e]


@njit(nogil=True, cache=True)
def improve_atoms(
    R, values, atoms, batch, offsets, samples, slots, starts, iterations, nonnegative, new_d, new_z
):
    """Improve each atom of `batch` from the same R; row b of `new_d` and ``new_z[starts[b]:]``."""
    longest = 0
    for j in batch:
        longest = max(longest, offsets[j + 1] - offsets[j])
    z = np.empty(longest, R.dtype)
    trial_z = np.empty(longest, R.dtype)
    g = np.empty(R.shape[1], R.dtype)
    trial_d = np.empty(R.shape[1], R.dtype)
    for b in range(batch.size):
        j = batch[b]
        low, size = offsets[j], offsets[j + 1] - offsets[j]
        if size == 0:
            new_d[b] = atoms[j]
            continue
        for e in range(size):
            z[e] = values[samples[low + e], slots[low + e]]
        improve_atom(
            R,
            samples[low : low + size],
            z[:size],
            atoms[j],
            iterations,
            nonnegative,
            new_d[b],
            new_z[starts[b] : starts[b] + size],
            g,
            trial_d,
            trial_z[:size],
        )


@njit(nogil=True, cache=True)
def apply_atoms(
    R, values, atoms, batch, offsets, samples, slots, starts, new_d, new_z, first, last
):
    """Bring R and the coefficients of the samples ``first … last − 1`` up to date."""
    for b in range(batch.size):
        j = batch[b]
        entries = samples[offsets[j] : offsets[j + 1]]
        low, high = np.searchsorted(entries, first), np.searchsorted(entries, last)
        for e in range(low, high):
            i, c = entries[e], slots[offsets[j] + e]
            value = new_z[starts[b] + e]
            add_two_scaled(R[i], values[i, c], atoms[j], -value, new_d[b])
            values[i, c] = value


@njit(nogil=True, cache=True)
def subtract_codes(R, indices, values, atoms, first, last):
    """R ← R − Z D on the samples ``first … last − 1``."""
    for i in range(first, last):
        for c in range(indices.shape[1]):
            if values[i, c] != 0:
                add_scaled(R[i], -values[i, c], atoms[indices[i, c]])
