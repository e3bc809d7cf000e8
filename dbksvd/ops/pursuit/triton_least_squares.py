"""Small least-squares systems in Triton: one program fits one sample, in registers and float64.

Legend: ``system`` (k, k) is the Gram matrix G_S of a support, ``b`` (k,) the products of the
sample with it; vectors and matrices are padded to a power of two and masks say what counts.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def solve_passive(system, b, passive, size, dependent, BLOCK_K: tl.constexpr):
    """Return least squares on the passive slots, the slopes of the others, and who was kept.

    Slot by slot the symmetric sweep operator (Goodnight, "A tutorial on the SWEEP operator",
    1979) solves for one more unknown: the diagonal is then the squared distance of the atom to
    the span of those before it, and an atom of at most `dependent` is left out (it gets 0). With
    pivot p and its row r, all of a sweep is one rank-1 step: subtract w wᵀ / p, where w is r
    with p − 1 in place of p.
    """
    slots = tl.arange(0, BLOCK_K)
    kept = passive & (slots < 0)
    for slot in range(size):
        here = slots == slot
        row = tl.sum(tl.where(here[:, None], system, 0.0), 0)
        pivot = tl.sum(tl.where(here, row, 0.0), 0)
        take = (tl.max((here & passive).to(tl.int32), 0) == 1) & (pivot > dependent)
        inverse = tl.where(take, 1.0 / tl.where(take, pivot, 1.0), 0.0)
        w = tl.where(here, row - 1.0, row)
        product = tl.sum(tl.where(here, b, 0.0), 0)
        system -= (w * inverse)[:, None] * w[None, :]
        b -= w * (inverse * product)
        kept = kept | (here & take)
    return tl.where(kept, b, 0.0), b, kept


@triton.jit
def load_system(gram, m, supports, used, BLOCK_K: tl.constexpr):
    """Return the Gram matrix of a support in float64, 0 where a slot is not used.

    The support is read from memory, so that no thread keeps the places between two solves.
    """
    row = tl.load(supports + tl.arange(0, BLOCK_K), used, 0).to(tl.int64)
    places = row[:, None] * m + row[None, :]
    return tl.load(gram + places, used[:, None] & used[None, :], 0.0).to(tl.float64)


@triton.jit
def fit_nonnegative(gram, m, supports, b, z, used, size, dependent, energy, BLOCK_K: tl.constexpr):
    """Return argmin over z ≥ 0 of ½ zᵀ G z − bᵀ z on the used slots, the first `size`.

    Lawson and Hanson's active set ("Solving least squares problems", 1974, chapter 23) from a
    feasible z, as in :mod:`dbksvd.ops.pursuit.least_squares`; ``energy`` is ‖x‖². Sweeps destroy
    the system, which is read from ``gram`` again for each solve: no second copy takes registers.
    """
    slots = tl.arange(0, BLOCK_K)
    zero = 1e-12 * tl.sqrt(energy)
    passive = used & (z > 0.0)
    barred = slots >= size
    newest = -1
    count = 0
    running = size > 0
    while running:
        system = load_system(gram, m, supports, used, BLOCK_K)
        s, slope, _kept = solve_passive(system, b, passive, size, dependent, BLOCK_K)
        blocked = passive & (s <= 0.0)
        # an atom at 0 cannot move down at all
        part = tl.where(blocked & (z > 0.0), z, 0.0)
        ratio = tl.where(blocked, part / tl.where(part > 0.0, z - s, 1.0), 1.0)
        step = tl.min(ratio, 0)
        leaving = blocked & (ratio <= step)
        z = tl.where(leaving, 0.0, tl.where(passive, z + step * (s - z), z))
        passive = passive & (leaving == 0)
        # an atom that leaves as it comes would come again for ever
        barred = barred | (leaving & (slots == newest))
        is_blocked = tl.max(blocked.to(tl.int32), 0) == 1
        gain = tl.where(passive | barred, float("-inf"), slope)
        best = tl.max(gain, 0)
        arriving = (is_blocked == 0) & (best > zero)
        newest = tl.where(arriving, tl.min(tl.where(gain == best, slots, BLOCK_K), 0), -1)
        passive = passive | (slots == newest)
        count += 1
        running = (is_blocked | arriving) & (count < 10 * size + 10)
    return z


@triton.jit
def fit_codes(
    supports,
    coefficients,
    products,
    gram,
    energies,
    indices,
    values,
    m,
    k,
    dependent,
    REFIT: tl.constexpr,
    NONNEGATIVE: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Fit a sample's coefficients on its support and write its codes, the used slots first.

    ``products`` (n, k) are those of the samples with their supports, ``energies`` (n,) their
    squared norms; both are read only where ``REFIT``.
    """
    sample = tl.program_id(0).to(tl.int64)
    slots = tl.arange(0, BLOCK_K)
    inside = slots < k
    at = sample * k + slots
    supports += sample * k
    support = tl.load(supports + slots, inside, -1).to(tl.int64)
    z = tl.load(coefficients + at, inside, 0.0)
    if REFIT:
        used = support >= 0
        size = tl.sum(used.to(tl.int32), 0)
        b = tl.load(products + at, used, 0.0).to(tl.float64)
        if NONNEGATIVE:
            energy = tl.load(energies + sample)
            z = fit_nonnegative(gram, m, supports, b, z, used, size, dependent, energy, BLOCK_K)
        else:
            system = load_system(gram, m, supports, used, BLOCK_K)
            z, _slope, _kept = solve_passive(system, b, used, size, dependent, BLOCK_K)
    value = z.to(values.dtype.element_ty)
    full = (inside & (value != 0.0)).to(tl.int32)
    empty = inside.to(tl.int32) - full
    place = tl.where(full == 1, tl.cumsum(full, 0) - 1, tl.sum(full, 0) + tl.cumsum(empty, 0) - 1)
    tl.store(indices + sample * k + place, tl.where(full == 1, support, 0), inside)
    tl.store(values + sample * k + place, tl.where(full == 1, value, 0.0), inside)
