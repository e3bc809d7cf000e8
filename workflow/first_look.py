"""The dictionaries that a run makes first, for a table and a figure while the others are fitted."""

from __future__ import annotations

from collections import Counter

from workflow.experiment import Experiment, Fit

# No first look where it would hold more than this share of all dictionaries.
MOST = 0.5


def choose_first(experiment: Experiment) -> list[Fit]:
    """Return the dictionaries to fit first; none where that is no small part of them.

    They are of the methods of the first grid, which the config names first, at the first place of
    the model, with the first seed, and of the size that most dictionaries have. Methods that begin
    from the fits of others are left out.

    Parameters
    ----------
    experiment : Experiment
        The checked config.
    """
    grid = experiment.config.fits[0] if experiment.config.fits else None
    if grid is None:
        return []
    site = experiment.sites[0]
    sizes = Counter(
        (fit.n_atoms, fit.k)
        for fit in experiment.fits
        if fit.site == site and fit.n_atoms in grid.n_atoms and fit.k in grid.k
    )
    n_atoms, k = max(sizes, key=lambda size: (sizes[size], -grid.k.index(size[1])))
    fits = [Fit(site, method, n_atoms, k, grid.seeds[0]) for method in dict.fromkeys(grid.methods)]
    planned = set(experiment.fits)  # a transcoder has no fit where there are no pairs
    first = [fit for fit in fits if fit in planned and not experiment.bases(fit)]
    return first if len(first) <= MOST * len(experiment.fits) else []


def describe_missing(experiment: Experiment, first: list[Fit]) -> str:
    """Return the line that marks a first look as one: what it holds, and what is missing."""
    n_atoms, k, seed = first[0].n_atoms, first[0].k, first[0].seed
    held = {fit.method for fit in first}
    used = {fit.method for fit in experiment.fits}
    others = [name for name in experiment.config.methods if name in used - held]
    text = (
        f"First look: {len(first)} of {len(experiment.fits)} dictionaries ({n_atoms} atoms, k = "
        f"{k}, seed {seed}, {first[0].site}), and no scores but those on held-out samples. "
        "Missing: other sizes, seeds and places, all other scores"
    )
    return f"{text}, and the methods {', '.join(others)}." if others else f"{text}."
