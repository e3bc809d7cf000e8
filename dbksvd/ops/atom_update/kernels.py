"""Numba kernels of the atom update; they release the interpreter lock and use one thread.

Legend: see :mod:`dbksvd.ops.atom_update.reference`. Entries are the used slots (sample, slot,
owner), sorted by batch of atoms and then by sample; the owner is the atom's place in its batch.
Going through a batch in the order of the samples reads R as a stream, which is about three times
as fast as atom by atom. Entries are cut into chunks between two samples; every chunk has sums of
its own, which are added in the order of the chunks, so that threads change no byte.
"""

from __future__ import annotations

import numpy as np

from dbksvd.ops.compiling import FAST, compile_allocating, compile_kernel

CHUNK_ENTRIES = 1 << 15


@compile_allocating()
def index_entries(indices, values, turns, atom_batch):
    """Return offsets of the batches, and samples, slots and owners of the entries (counting sort).

    ``turns[j]`` is the place of atom j in the order of the update.
    """
    n, k = indices.shape
    offsets = np.zeros((turns.size + atom_batch - 1) // atom_batch + 1, np.int64)
    for i in range(n):
        for c in range(k):
            if values[i, c] != 0:
                offsets[turns[indices[i, c]] // atom_batch + 1] += 1
    for b in range(offsets.size - 1):
        offsets[b + 1] += offsets[b]
    following = offsets[:-1].copy()
    samples = np.empty(offsets[-1], np.int32)
    slots = np.empty(offsets[-1], np.int32)
    owners = np.empty(offsets[-1], np.int32)
    for i in range(n):
        for c in range(k):
            if values[i, c] != 0:
                turn = turns[indices[i, c]]
                place = following[turn // atom_batch]
                following[turn // atom_batch] += 1
                samples[place] = i
                slots[place] = c
                owners[place] = turn % atom_batch
    return offsets, samples, slots, owners


@compile_allocating()
def cut_chunks(samples):
    """Return the ends of chunks of about `CHUNK_ENTRIES` entries; none divides a sample."""
    ends = [0]
    while ends[-1] < samples.size:
        end = min(ends[-1] + CHUNK_ENTRIES, samples.size)
        while end < samples.size and samples[end] == samples[end - 1]:
            end += 1
        ends.append(end)
    return np.array(ends)


@compile_kernel(fastmath=FAST)
def dot(a, b):
    """Return a · b."""
    total = a.dtype.type(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@compile_kernel(fastmath=FAST)
def add_scaled(a, v, b):
    """Set a ← a + v b."""
    for i in range(a.size):
        a[i] += v * b[i]


@compile_kernel(fastmath=FAST)
def add_two_scaled(a, v, b, w, c):
    """Set a ← a + v b + w c."""
    for i in range(a.size):
        a[i] += v * b[i] + w * c[i]


@compile_kernel()
def start_sums(R, values, samples, slots, owners, z, new_z, ends, G, S, first, last):
    """Set z ← the coefficients; per chunk and atom, G ← R[Ω]ᵀz and S ← z·z."""
    for chunk in range(first, last):
        G[chunk] = 0
        S[chunk] = 0
        for e in range(ends[chunk], ends[chunk + 1]):
            i, b = samples[e], owners[e]
            value = values[i, slots[e]]
            z[e] = value
            new_z[e] = value
            add_scaled(G[chunk, b], value, R[i])
            S[chunk, b] += value * value


@compile_allocating()
def turn_atoms(G, S, d, new_d, along, moving, nonnegative):
    """Set new_d ← g / ‖g‖ with g = Eᵀz' = Σ G + (Σ S) d, in the half space of d; along ← d·new_d.

    An atom whose g vanishes stays as it is, and is not `moving` any more.
    """
    g = np.empty_like(d[0])
    for b in range(len(d)):
        if not moving[b]:
            continue
        g[:] = 0
        overlap = g.dtype.type(0)
        for chunk in range(len(G)):
            add_scaled(g, g.dtype.type(1), G[chunk, b])
            overlap += S[chunk, b]
        add_scaled(g, overlap, d[b])
        norm = np.sqrt(dot(g, g))
        if norm == 0:
            moving[b] = False
            continue
        scale = g.dtype.type(1) / norm
        if not nonnegative and dot(g, d[b]) < 0:
            scale = -scale
        new_d[b] = 0
        add_scaled(new_d[b], scale, g)
        along[b] = dot(d[b], new_d[b])


@compile_kernel()
def step_sums(
    R, samples, owners, z, new_z, new_d, along, moving, nonnegative, ends, G, S, first, last
):
    """Set new_z ← E new_d (at least 0); per chunk and atom, G ← R[Ω]ᵀnew_z and S ← z·new_z."""
    zero = R.dtype.type(0)
    for chunk in range(first, last):
        G[chunk] = 0
        S[chunk] = 0
        for e in range(ends[chunk], ends[chunk + 1]):
            b = owners[e]
            if moving[b]:
                row = R[samples[e]]
                value = dot(row, new_d[b]) + z[e] * along[b]
                if nonnegative and value < 0:
                    value = zero
                new_z[e] = value
                add_scaled(G[chunk, b], value, row)
                S[chunk, b] += value * z[e]


@compile_kernel()
def finish(
    R,
    values,
    samples,
    slots,
    owners,
    z,
    new_z,
    d,
    new_d,
    along,
    moving,
    nonnegative,
    ends,
    first,
    last,
):
    """Set new_z ← E new_d (at least 0); then R ← R + z d − new_z new_d, and the coefficients.

    All entries of a sample read its row of R before any of them changes it.
    """
    zero = R.dtype.type(0)
    e = ends[first]
    while e < ends[last]:
        i = samples[e]
        row = R[i]
        stop = e
        while stop < ends[last] and samples[stop] == i:
            b = owners[stop]
            if moving[b]:
                value = dot(row, new_d[b]) + z[stop] * along[b]
                if nonnegative and value < 0:
                    value = zero
                new_z[stop] = value
            stop += 1
        while e < stop:
            b = owners[e]
            add_two_scaled(row, z[e], d[b], -new_z[e], new_d[b])
            values[i, slots[e]] = new_z[e]
            e += 1


@compile_kernel()
def subtract_codes(R, indices, values, atoms, first, last):
    """Set R ← R − Z D on the samples ``first … last − 1``."""
    for i in range(first, last):
        for c in range(indices.shape[1]):
            if values[i, c] != 0:
                add_scaled(R[i], -values[i, c], atoms[indices[i, c]])
