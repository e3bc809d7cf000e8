"""How many samples each step of a fit reads, how many atoms join, and what that costs.

The fit follows these functions, and ``make estimate`` counts with them; no torch is imported.
"""

from __future__ import annotations

from dbksvd.base.work import FLOAT, Work
from dbksvd.fit.grown.settings import GrownSettings
from dbksvd.fit.ksvd.schedule import choose_batch_size
from dbksvd.fit.method import FitSizes
from dbksvd.fit.pursuit_work import count_pursuit

# Samples of a step of growth, at least and at most.
FEWEST_ROWS, MOST_ROWS = 10_000, 50_000
POLISH_ROWS_PER_ATOM = 200
CLEANING_ROWS_PER_ATOM = 400
# Samples that are held at once at most, whatever the number of atoms.
MOST_HELD_ROWS = 409_600
# The last batches of settling, each twice the one before, average out the noise of small ones.
DOUBLINGS = 4
# Atoms that may join in a round, whatever the fraction.
FEWEST_JOINING = 2
# Power iterations of an atom's update.
POWER_ITERATIONS = 2
# Steps in which a candidate for a new atom moves.
CLIMBS = 10
# Times that penalties and usage are computed from one another.
CONFIRMATIONS = 2
# Main directions of an atom's residuals, in which cleaning looks for features without atoms, and
# the subspace iterations that find these directions: near enough, far cheaper than eigenvectors.
DIRECTIONS = 4
SUBSPACE_ITERATIONS = 5


def count_round_rows(n_atoms: int, samples_per_atom: int) -> int:
    """Return the samples that each step of a round of growth reads."""
    return max(FEWEST_ROWS, min(MOST_ROWS, samples_per_atom * n_atoms))


def count_joining(n_held: int, n_atoms: int, growth: float) -> int:
    """Return how many of `n_atoms` atoms may join the `n_held` there are in a round."""
    return min(n_atoms - n_held, max(FEWEST_JOINING, int(growth * n_held)))


def plan_settling(n_atoms: int, k: int, count: int) -> list[int]:
    """Return the samples of each iteration of a settling: `count` small batches, then larger."""
    if not count:
        return []
    batch = choose_batch_size(n_atoms, k)
    larger = [min(MOST_HELD_ROWS, batch << step) for step in range(1, DOUBLINGS + 1)]
    return [batch] * count + larger


def count_polish_rows(n_atoms: int) -> int:
    """Return the samples of an iteration of polishing."""
    return min(MOST_HELD_ROWS, POLISH_ROWS_PER_ATOM * n_atoms)


def count_cleaning_rows(n_atoms: int) -> int:
    """Return the samples that atoms are cleaned on."""
    return min(MOST_HELD_ROWS, CLEANING_ROWS_PER_ATOM * n_atoms)


def count_work(settings: GrownSettings, sizes: FitSizes) -> Work:
    """Return the work of one fit, at most.

    Counted are rounds in which as many atoms join as may, and a settling in which no atom is
    co-active, so that it takes all of its iterations.
    """
    m, k, d = sizes.n_atoms, sizes.k, sizes.width
    total = Work()
    if settings.warm_start is None:
        total = _count_growth(settings, sizes) + _count_settling(settings, sizes)
    rows = min(sizes.n_train, count_polish_rows(m))
    coding = count_coding(settings, sizes)
    total += coding.times(rows * (settings.polish_iter + CONFIRMATIONS) + sizes.n_heldout)
    total += _count_updates(rows * settings.polish_iter, sizes)
    if settings.cleaning:
        rows = min(sizes.n_train, count_cleaning_rows(m))
        total += coding.times(rows)
        total += Work(products=rows * k * d * 4.0 * DIRECTIONS * SUBSPACE_ITERATIONS)
    held = rows * (2.0 * d + 2 * k) + 3.0 * m * d
    return total + Work(memory=held * FLOAT, disk=2.0 * m * d * FLOAT)


def count_coding(_settings: GrownSettings, sizes: FitSizes) -> Work:
    """Return the work of coding one sample by the finished dictionary."""
    return count_pursuit(sizes.width, sizes.n_atoms, sizes.k, "mp", refit=True)


def _count_growth(settings: GrownSettings, sizes: FitSizes) -> Work:
    """Count all rounds: the search for new atoms, one coding for it, and the iterations."""
    total, m = Work(), 0
    while m < sizes.n_atoms:
        rows = min(sizes.n_train, count_round_rows(m, settings.samples_per_atom))
        total += Work(products=rows * settings.starts * sizes.width * 4.0 * CLIMBS)
        m += count_joining(m, sizes.n_atoms, settings.growth)
        coding = count_pursuit(sizes.width, m, min(sizes.k, m), "mp", refit=True)
        total += coding.times(rows * (1 + settings.round_iterations))
        total += _count_updates(rows * settings.round_iterations, sizes)
    return total


def _count_settling(settings: GrownSettings, sizes: FitSizes) -> Work:
    batches = plan_settling(sizes.n_atoms, sizes.k, settings.settle_iter)
    rows = sum(min(sizes.n_train, batch) for batch in batches)
    return count_coding(settings, sizes).times(rows) + _count_updates(rows, sizes)


def _count_updates(rows: int, sizes: FitSizes) -> Work:
    """Count updates of the atoms from `rows` samples, k non-zeros each."""
    return Work(steps=rows * sizes.k * sizes.width * (4.0 * POWER_ITERATIONS + 4))
