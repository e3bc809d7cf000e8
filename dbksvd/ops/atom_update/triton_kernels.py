"""Triton kernels of the atom update.

Legend: see :mod:`dbksvd.ops.atom_update.reference`. An entry is a used slot, numbered
``sample · k + slot``; the turn of an atom is its place in the order of the update, its owner
number its place in the batch, ``turn − low``. A batch is the turns ``low … high − 1``.

Entries sorted by turn are cut into as many equal stretches as there are programs, whoever owns
them, so that frequent atoms cost no more than others. A stretch holds a run of entries of each
atom it meets; with the stretch or the owner one more from each run to the next, their sum numbers
the runs. Each run has sums of its own, added up in order: no atomics, same bytes in every run.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def cut_batch(offsets, low, high, programs):
    """Return the first entry of a batch, the end of its entries, and the length of a stretch."""
    first = tl.load(offsets + low)
    last = tl.load(offsets + high)
    return first, last, (last - first + programs - 1) // programs


@triton.jit(do_not_specialize=["low", "high"])
def sum_runs(
    residual,
    values,
    entries,
    turns,
    offsets,
    new_atoms,
    along,
    moved,
    sums,
    overlaps,
    low,
    high,
    k,
    d,
    FIRST: tl.constexpr,
    NONNEGATIVE: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Set z' ← E d' (z' ← z at `FIRST`); per run, sums ← R[Ω]ᵀ z' and overlaps ← z · z'.

    ``turns`` are those of the sorted ``entries``; z' is not kept. A row of R is read once.
    """
    program = tl.program_id(0)
    first, last, length = cut_batch(offsets, low, high, tl.num_programs(0))
    entry = first + program * length
    end = tl.minimum(entry + length, last)
    column = tl.arange(0, BLOCK)
    inside = column < d
    kind = residual.dtype.element_ty
    while entry < end:
        turn = tl.load(turns + entry)
        owner = turn - low
        stop = tl.minimum(tl.load(offsets + turn + 1), end)
        total = tl.zeros([BLOCK], kind)
        overlap = tl.zeros([TILE], kind)
        if not FIRST:
            new = tl.load(new_atoms + owner.to(tl.int64) * d + column, inside, 0.0)
            cosine = tl.load(along + owner)
            is_moved = tl.load(moved + owner) != 0
        for tile in tl.range(entry, stop, TILE, num_stages=3):
            place = tile + tl.arange(0, TILE)
            live = place < stop
            which = tl.load(entries + place, live, 0)
            z = tl.load(values + which, live, 0.0)
            at = (which // k)[:, None] * d + column[None, :]
            rows = tl.load(residual + at, live[:, None] & inside[None, :], 0.0)
            new_z = z
            if not FIRST:
                new_z = tl.sum(rows * new[None, :], 1) + z * cosine
                if NONNEGATIVE:
                    new_z = tl.maximum(new_z, 0.0)
                new_z = tl.where(is_moved, new_z, z)
            total += tl.sum(rows * new_z[:, None], 0)
            overlap += new_z * z
        run = (program + owner).to(tl.int64)
        tl.store(sums + run * d + column, total, inside)
        tl.store(overlaps + run, tl.sum(overlap, 0))
        entry = stop


@triton.jit(do_not_specialize=["low", "high"])
def turn_atoms(
    sums,
    overlaps,
    offsets,
    atoms,
    order,
    new_atoms,
    along,
    moved,
    low,
    high,
    programs,
    d,
    FIRST: tl.constexpr,
    NONNEGATIVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Set d' ← g / ‖g‖ with g = Eᵀz' in the half space of d, and along ← d · d'; an owner each.

    An atom whose g vanishes, or that has no entries, keeps its d'; `moved` says whether it ever
    got one that is not d.
    """
    owner = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < d
    old = tl.load(atoms + tl.load(order + low + owner) * d + column, inside, 0.0)
    if FIRST:
        tl.store(new_atoms + owner.to(tl.int64) * d + column, old, inside)
        tl.store(along + owner, 1.0)
        tl.store(moved + owner, 0)
        tl.debug_barrier()
    first, _last, length = cut_batch(offsets, low, high, programs)
    start = tl.load(offsets + low + owner)
    stop = tl.load(offsets + low + owner + 1)
    if start < stop:
        g = tl.zeros([BLOCK], sums.dtype.element_ty)
        overlap = tl.sum(g, 0)
        for stretch in range((start - first) // length, (stop - 1 - first) // length + 1):
            g += tl.load(sums + (stretch + owner) * d + column, inside, 0.0)
            overlap += tl.load(overlaps + stretch + owner)
        g += overlap * old
        norm = tl.sqrt(tl.sum(g * g, 0))
        if norm > 0:
            new = g / norm
            cosine = tl.sum(new * old, 0)
            if not NONNEGATIVE:
                sign = tl.where(cosine < 0, -1.0, 1.0).to(new.dtype)
                new *= sign
                cosine *= sign
            tl.store(new_atoms + owner.to(tl.int64) * d + column, new, inside)
            tl.store(along + owner, cosine)
            tl.store(moved + owner, 1)


@triton.jit(do_not_specialize=["low", "high"])
def add_runs(
    sums, overlaps, offsets, atoms, order, out, low, high, programs, d, BLOCK: tl.constexpr
):
    """Set out ← Eᵀz' of this rank's entries; an owner each, zeros for one without entries."""
    owner = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < d
    first, _last, length = cut_batch(offsets, low, high, programs)
    start = tl.load(offsets + low + owner)
    stop = tl.load(offsets + low + owner + 1)
    g = tl.zeros([BLOCK], sums.dtype.element_ty)
    if start < stop:
        overlap = tl.sum(g, 0)
        for stretch in range((start - first) // length, (stop - 1 - first) // length + 1):
            g += tl.load(sums + (stretch + owner) * d + column, inside, 0.0)
            overlap += tl.load(overlaps + stretch + owner)
        old = tl.load(atoms + tl.load(order + low + owner) * d + column, inside, 0.0)
        g += overlap * old
    tl.store(out + owner.to(tl.int64) * d + column, g, inside)


@triton.jit(do_not_specialize=["low", "high"])
def finish_samples(
    residual,
    values,
    entries,
    turns,
    offsets,
    atoms,
    order,
    new_atoms,
    along,
    moved,
    low,
    high,
    k,
    d,
    NONNEGATIVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Set z' ← E d'; then R ← R + z d − z' d', and the coefficients.

    Here ``entries`` are sorted by batch and then by sample and ``turns`` are those of all slots.
    The program that meets the first entry of a sample handles all of them, and all read the row
    of R before it changes.
    """
    first, last, length = cut_batch(offsets, low, high, tl.num_programs(0))
    begin = first + tl.program_id(0) * length
    column = tl.arange(0, BLOCK)
    inside = column < d
    for place in range(begin, tl.minimum(begin + length, last)):
        sample = tl.load(entries + place) // k
        before = tl.load(entries + place - 1, place > first, 0) // k
        if (place == first) | (before != sample):
            at = residual + sample * d + column
            row = tl.load(at, inside, 0.0)
            change = tl.zeros([BLOCK], row.dtype)
            following = place
            more = following < last
            while more:
                entry = tl.load(entries + following)
                turn = tl.load(turns + entry)
                owner = turn - low
                if tl.load(moved + owner) != 0:
                    old = tl.load(atoms + tl.load(order + turn) * d + column, inside, 0.0)
                    new = tl.load(new_atoms + owner.to(tl.int64) * d + column, inside, 0.0)
                    z = tl.load(values + entry)
                    new_z = tl.sum(row * new, 0) + z * tl.load(along + owner)
                    if NONNEGATIVE:
                        new_z = tl.maximum(new_z, 0.0)
                    tl.store(values + entry, new_z)
                    change += z * old - new_z * new
                following += 1
                next_sample = tl.load(entries + following, following < last, 0) // k
                more = (following < last) & (next_sample == sample)
            tl.store(at, row + change, inside)


@triton.jit
def subtract_codes(x, indices, values, atoms, out, k, d, BLOCK: tl.constexpr):
    """Set out ← x − Z D, a sample and a stretch of its columns each."""
    sample = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < d
    row = tl.load(x + sample * d + column, inside, 0.0)
    for slot in range(k):
        atom = tl.load(indices + sample * k + slot)
        value = tl.load(values + sample * k + slot)
        row -= value * tl.load(atoms + atom * d + column, inside, 0.0)
    tl.store(out + sample * d + column, row, inside)
