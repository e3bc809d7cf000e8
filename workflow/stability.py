"""Which dictionaries differ in their seed only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

# By site, method, n_atoms and k.
SeedGroups: TypeAlias = dict[tuple[str, str, int, int], list[Any]]


def group_seeds(fits: Iterable[Any]) -> SeedGroups:
    """Return the fits of each kind of dictionary that has two seeds or more.

    Parameters
    ----------
    fits : iterable of Fit
        The dictionaries of an experiment.

    Returns
    -------
    dict
        Lists of fits in the order of their seeds, by site, method, n_atoms and k.
    """
    groups: SeedGroups = {}
    for fit in sorted(fits):
        groups.setdefault((fit.site, fit.method, fit.n_atoms, fit.k), []).append(fit)
    return {kind: group for kind, group in groups.items() if len(group) > 1}
