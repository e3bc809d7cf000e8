"""How many samples each step of a growth reads."""

from __future__ import annotations

from dbksvd.fit.ksvd.schedule import choose_batch_size

FEWEST_ROWS, MOST_ROWS = 10_000, 50_000
POLISH_ROWS_PER_ATOM = 200
CLEANING_ROWS_PER_ATOM = 400
# Samples that are held at once at most, whatever the number of atoms.
MOST_HELD_ROWS = 409_600
# Batches, each twice the one before, that take the noise of small ones away.
DOUBLINGS = 4


def count_round_rows(n_atoms: int, samples_per_atom: int) -> int:
    """Return the samples that each step of a round of growth reads."""
    return max(FEWEST_ROWS, min(MOST_ROWS, samples_per_atom * n_atoms))


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
