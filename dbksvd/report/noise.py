"""How sure a score is: standard errors over seeds and parts, intervals, what is told apart.

A score of a method is a table of numbers v[s, p]: seeds s of the fit, and parts p of the eval (data
sets, classes, groups of documents), or one column where an eval has no parts. The score is its
mean. Two sources of noise are kept apart, and both count: another seed would give another
dictionary, and other parts would be drawn another time.

- Seeds: the variance of the means over parts, divided by the number of seeds; of each method by
  itself (Welch 1947). A method with one seed takes the mean variance of all that have more.
- Parts: the variance over parts of the difference of two methods, each averaged over its seeds,
  divided by the number of parts: paired, as in :func:`scipy.stats.ttest_rel`.

Their sum counts the noise of single cells twice; its estimate (the residual of v after means of
rows and columns) is taken off. Degrees of freedom are Satterthwaite's (1946). Methods are told
apart by the studentised range of all methods that are compared, as in Games and Howell (1976) and
:func:`scipy.stats.tukey_hsd` with ``equal_var=False``, here for paired parts: with all methods
equal, a false claim about any pair has a chance of 5 %.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import TypeVar

import numpy as np
from scipy import stats

LEVEL = 0.05  # of false claims about any pair of methods
POWER = 0.8
# Degrees of freedom at which quantiles are computed.
GRID = np.array([1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 20, 1e4])
EXACT = 1e-12  # a standard error below this share of the value is rounding

Name = TypeVar("Name", bound=Hashable)
Values = np.ndarray  # float64 of shape (seeds, parts)


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error.

    Parameters
    ----------
    value, error : float
        In the unit of the score.
    df : float
        Degrees of freedom of the standard error.
    """

    value: float
    error: float
    df: float

    def widen(self, methods: int = 2) -> float:
        """Return half the width of the 95 % interval; with those of all pairs of `methods`."""
        return self.error * find_critical(methods, self.df)

    def is_told_apart(self, methods: int) -> bool:
        """Return whether the number differs from 0, as one of all pairs of `methods`."""
        return abs(self.value) > self.widen(methods)

    def find_smallest(self, methods: int) -> float:
        """Return the smallest true difference that is told apart in 80 % of experiments.

        The critical value plus the quantile of Student's t at the power, in standard errors.
        """
        return self.widen(methods) + self.error * float(stats.t.ppf(POWER, self.df))


@cache
def _find_range(methods: int, df: float) -> float:
    return float(stats.studentized_range.ppf(1 - LEVEL, methods, df) / np.sqrt(2))


def find_critical(methods: int, df: float) -> float:
    """Return how many standard errors a difference must reach; Student's t for two methods.

    The quantile of the studentised range takes a quarter of a second: between a few degrees of
    freedom it is interpolated, linearly in their inverse. From 2 on this errs by 1 % at most and
    below by 4 %, upwards.
    """
    if methods == 2:
        return float(stats.t.isf(LEVEL / 2, df))
    high = min(int(np.searchsorted(GRID, df, side="right")), len(GRID) - 1)
    ends = GRID[[high, high - 1]]  # by rising inverse
    return float(np.interp(1 / df, 1 / ends, [_find_range(methods, float(end)) for end in ends]))


@dataclass(frozen=True)
class SeedNoise:
    """Variance of a method's score over seeds, and its degrees of freedom."""

    variance: float
    df: float


def pool_seeds(tables: Iterable[Values]) -> SeedNoise | None:
    """Return the mean variance over seeds of the methods that have several; None without any.

    Parameters
    ----------
    tables : iterable of float64 arrays of shape (seeds, parts)
        Scores of methods, at any size.
    """
    several = [values.mean(axis=1) for values in tables if len(values) > 1]
    if not several:
        return None
    df = sum(len(means) - 1 for means in several)
    squares = sum(float(np.square(means - means.mean()).sum()) for means in several)
    return SeedNoise(squares / df, df)


def compare(one: Values, other: Values, pooled: SeedNoise | None) -> Estimate | None:
    """Return how much higher `one` is than `other`; None where nothing says how noisy that is.

    Parameters
    ----------
    one, other : float64 array of shape (seeds, parts)
        Scores of two methods; the number of seeds may differ, the parts are the same.
    pooled : SeedNoise or None
        From :func:`pool_seeds`, for a method with one seed.
    """
    sides = (one, other)
    parts = one.mean(axis=0) - other.mean(axis=0)
    return _combine(parts, _list_seed_terms(sides, pooled), sides)


def estimate(values: Values, common: Values, pooled: SeedNoise | None) -> Estimate | None:
    """Return a score with the noise that methods do not share, for a table of several methods.

    Some parts are easier than others for all methods, which changes no comparison: the mean over
    methods is taken off each part first (Cousineau 2005).

    Parameters
    ----------
    values : float64 array of shape (seeds, parts)
        Scores of the method.
    common : float64 array of shape (methods, parts)
        Scores of all methods that it stands beside, each averaged over its seeds.
    pooled : SeedNoise or None
        As for :func:`compare`.
    """
    # The mean over M methods holds the method itself: what is left is too small (Morey 2008).
    methods = len(common)
    correction = np.sqrt(methods / (methods - 1)) if methods > 1 else 0.0
    own = (values.mean(axis=0) - common.mean(axis=0)) * correction
    found = _combine(own, _list_seed_terms((values,), pooled), (values,))
    return None if found is None else Estimate(float(values.mean()), found.error, found.df)


def _list_seed_terms(sides: tuple[Values, ...], pooled: SeedNoise | None) -> list[SeedNoise]:
    """Return variances of means over seeds: of each side with several, and of the others at once.

    Two sides with one seed have the same estimate, which is one term and no two independent ones.
    """
    several = [values for values in sides if len(values) > 1]
    terms = [
        SeedNoise(float(values.mean(axis=1).var(ddof=1)) / len(values), len(values) - 1)
        for values in several
    ]
    single = len(sides) - len(several)
    if single and pooled is not None:
        terms.append(SeedNoise(single * pooled.variance, pooled.df))
    return terms


def _combine(parts: Values, terms: list[SeedNoise], sides: tuple[Values, ...]) -> Estimate | None:
    """Return the mean of `parts` with the noise of parts and seeds."""
    if len(parts) > 1:
        own = SeedNoise(float(parts.var(ddof=1)) / len(parts), len(parts) - 1)
        terms = [*terms, own]
    largest = max((term.variance for term in terms), default=0.0)
    size = max(float(np.abs(values).max()) for values in sides)
    if largest <= (EXACT * size) ** 2:
        return None
    total = sum(term.variance for term in terms) - sum(map(_find_cell_noise, sides))
    total = max(total, largest)
    df = total**2 / sum(term.variance**2 / term.df for term in terms)
    df = max(df, min(term.df for term in terms))
    return Estimate(float(parts.mean()), float(np.sqrt(total)), float(df))


def _find_cell_noise(values: Values) -> float:
    """Return the variance of the mean that comes from single cells, known of several seeds."""
    seeds, parts = values.shape
    if seeds < 2 or parts < 2:
        return 0.0
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    return float(np.square(rest).sum()) / ((seeds - 1) * (parts - 1)) / (seeds * parts)


def find_best(
    tables: Mapping[Name, Values], pooled: SeedNoise | None, *, lower_is_better: bool
) -> set[Name]:
    """Return the methods that are not told apart from the best; none where nothing can be compared.

    Parameters
    ----------
    tables : mapping to float64 array of shape (seeds, parts)
        Scores of each method.
    pooled : SeedNoise or None
        As for :func:`compare`.
    lower_is_better : bool
        Whether the best has the lowest score.
    """
    if len(tables) < 2:
        return set()
    sign = -1 if lower_is_better else 1
    best = max(tables, key=lambda name: sign * float(tables[name].mean()))
    known = {
        name: difference
        for name, values in tables.items()
        if name != best and (difference := compare(tables[best], values, pooled))
    }
    if not known:
        return set()
    near = {name for name, each in known.items() if not each.is_told_apart(len(tables))}
    return {best, *near}


def find_smallest(tables: Iterable[Values], pooled: SeedNoise | None) -> float | None:
    """Return the smallest difference that is told apart in 80 % of experiments, median over pairs.

    None where no pair of the tables can be compared.
    """
    values = list(tables)
    pairs = (compare(one, other, pooled) for one, other in combinations(values, 2))
    found = [pair.find_smallest(len(values)) for pair in pairs if pair]
    return float(np.median(found)) if found else None
