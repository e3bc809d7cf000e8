"""What each iteration of a fit does: how many atoms, how many samples, from which row on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

FIRST_STAGE_ATOMS = 32
# Samples in a batch: enough that each atom is used this often, on average.
USES_PER_ATOM = 128
SMALLEST_BATCH = 2048


@dataclass(frozen=True)
class Step:
    """One iteration.

    Parameters
    ----------
    stage : int
        0 for the first size of the dictionary, counting up as it grows.
    groups : tuple of int
        Atoms in each group; one group is a plain dictionary.
    budget : int
        Non-zeros for each group.
    position : int
        Row at which the batch begins, counted without wrapping around.
    samples : int
        Samples in the batch.
    """

    stage: int
    groups: tuple[int, ...]
    budget: int
    position: int
    samples: int

    @property
    def n_atoms(self) -> int:
        """Atoms of the dictionary in this iteration."""
        return sum(self.groups)


def split_groups(n_atoms: int, groups: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the sizes of the Matryoshka groups.

    Parameters
    ----------
    n_atoms : int
        Atoms in all.
    groups : None, int or sequence of int
        None for one group; the sizes themselves; or the size s of the first group, from which
        the dictionary doubles: s, s, 2s, 4s, … up to `n_atoms`.

    Raises
    ------
    ValueError
        If the sizes are not positive or do not add up to `n_atoms`.
    """
    if groups is None:
        return (n_atoms,)
    if isinstance(groups, int):
        if not 1 <= groups <= n_atoms:
            raise ValueError(f"groups: expected a first size from 1 to {n_atoms}, got {groups}")
        ends = double_sizes(groups, n_atoms)
        return (ends[0], *(high - low for low, high in pairwise(ends)))
    sizes = tuple(groups)
    if not sizes or min(sizes) < 1 or sum(sizes) != n_atoms:
        raise ValueError(
            f"groups: expected positive sizes that add up to {n_atoms}, got {list(sizes)}"
        )
    return sizes


def double_sizes(first: int, last: int) -> list[int]:
    """Return first, 2·first, 4·first, … and `last`."""
    sizes = [min(first, last)]
    while sizes[-1] < last:
        sizes.append(min(2 * sizes[-1], last))
    return sizes


def truncate_groups(groups: tuple[int, ...], n_atoms: int) -> tuple[int, ...]:
    """Return the groups that the first `n_atoms` atoms fill, the last one perhaps in part."""
    kept = []
    for size in groups:
        if n_atoms <= 0:
            break
        kept.append(min(size, n_atoms))
        n_atoms -= size
    return tuple(kept)


def choose_batch_size(n_atoms: int, k: int) -> int:
    """Return samples for a batch in which an atom is used `USES_PER_ATOM` times on average."""
    return max(SMALLEST_BATCH, -(-USES_PER_ATOM * n_atoms // k))


def plan_steps(
    groups: tuple[int, ...],
    k: int,
    *,
    is_grown: bool,
    growth_iterations: int,
    growth_samples: int,
    max_iter: int,
    polish_iter: int,
    batch_size: int,
    n_samples: int,
    iterations_per_batch: int,
) -> list[Step]:
    """Return every iteration of a fit, in order.

    A grown dictionary doubles from `FIRST_STAGE_ATOMS`, with `growth_iterations` at each size
    below the full one on batches of `growth_samples` samples an atom (at most `batch_size`);
    `max_iter` iterations at full size follow, and then `polish_iter` whose batches double (up to
    all samples). Batches follow one another in the data.
    """
    batch_size = min(batch_size, n_samples)
    n_atoms = sum(groups)
    budget = -(-k // len(groups))
    sizes = double_sizes(FIRST_STAGE_ATOMS, n_atoms) if is_grown else [n_atoms]
    steps: list[Step] = []
    position = 0
    for stage, size in enumerate(sizes):
        is_full = size == n_atoms
        samples = batch_size if is_full else min(batch_size, growth_samples * max(size, 64))
        for iteration in range(max_iter if is_full else growth_iterations):
            steps.append(Step(stage, truncate_groups(groups, size), budget, position, samples))
            if not is_full or (iteration + 1) % iterations_per_batch == 0:
                position += samples
    for polish in range(1, polish_iter + 1):
        samples = min(batch_size << polish, n_samples)
        steps.append(Step(len(sizes), groups, budget, position, samples))
        position += samples
    return steps
