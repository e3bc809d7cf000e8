"""What each iteration of a fit does: how many atoms, how many samples, from which row on.

The fit follows this plan, and the estimate of its cost counts it. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from dbksvd.fit.ksvd.settings import DBKSVDSettings

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
        0 for the first size of the dictionary, 1 for the next one, and so on.
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
        None for one group; the sizes themselves; or the size s of the first group. Then the
        sizes are s, s, 2s, 4s, …, so that each group doubles the dictionary, up to `n_atoms`.

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


def check_sizes(settings: DBKSVDSettings, n_atoms: int, k: int) -> None:
    """Check that settings fit the atoms of a dictionary and the non-zeros of a sample.

    Raises
    ------
    ValueError
        If they do not; the message begins with the key.
    """
    if k > n_atoms:
        raise ValueError(f"k: expected at most n_atoms={n_atoms}, got {k}")
    groups = split_groups(n_atoms, settings.groups)
    if settings.sparsity == "mean" and len(groups) > 1:
        raise ValueError(f"sparsity: expected 'exact' with groups={settings.groups}, got 'mean'")


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


def plan_steps(settings: DBKSVDSettings, n_atoms: int, k: int, n_samples: int) -> list[Step]:
    """Return every iteration of a fit, in order.

    With ``init: doubling`` the dictionary doubles from `FIRST_STAGE_ATOMS`. Each size below the
    full one has ``doubling_iterations``, on batches of ``doubling_samples`` samples an atom, at
    most a whole batch. Then come ``max_iter`` iterations at full size, and ``polish_iter`` whose
    batches double, up to all samples. Batches follow one another in the data.

    Parameters
    ----------
    settings : DBKSVDSettings
        What the fit does.
    n_atoms, k : int
        Atoms of the dictionary and non-zeros of a sample.
    n_samples : int
        Samples there are to learn from.
    """
    groups = split_groups(n_atoms, settings.groups)
    batch_size = min(settings.batch_size or choose_batch_size(n_atoms, k), n_samples)
    budget = -(-k // len(groups))
    is_doubling = settings.init == "doubling"
    sizes = double_sizes(FIRST_STAGE_ATOMS, n_atoms) if is_doubling else [n_atoms]
    steps: list[Step] = []
    position = 0
    for stage, size in enumerate(sizes):
        is_full = size == n_atoms
        most = batch_size if is_full else settings.doubling_samples * max(size, 64)
        samples = min(batch_size, most)
        for iteration in range(settings.max_iter if is_full else settings.doubling_iterations):
            steps.append(Step(stage, truncate_groups(groups, size), budget, position, samples))
            if not is_full or (iteration + 1) % settings.iterations_per_batch == 0:
                position += samples
    for polish in range(1, settings.polish_iter + 1):
        samples = min(batch_size << polish, n_samples)
        steps.append(Step(len(sizes), groups, budget, position, samples))
        position += samples
    return steps


def count_samples(n_atoms: int, k: int, n_train: int) -> int:
    """Return how many samples DB-KSVD sees by default, each counted as often as it is used."""
    return sum(step.samples for step in plan_steps(DBKSVDSettings(), n_atoms, k, n_train))
