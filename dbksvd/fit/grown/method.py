"""Grown DB-KSVD: non-negative atoms that join from general to special, for true features.

The log of what was tried, with numbers, is ``docs/identification.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.base.settings import parse
from dbksvd.fit.grown.plan import count_coding, count_work
from dbksvd.fit.grown.settings import GrownSettings
from dbksvd.fit.method import Base, Method

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask


def fit(task: FitTask) -> FitResult:
    """Grow a dictionary, or polish that of ``task.base``.

    1. Growth. Each round codes new samples by a non-negative pursuit with one threshold, looks for
       new atoms in the residual, and does a few iterations of DB-KSVD. Atoms of earlier rounds
       hardly move in these: free to move, a frequent atom takes on part of the rarer atoms that
       are used in the same samples.
    2. Settling. Two atoms are co-active if the conditional probability that one is used in a
       sample, given that the other is, is large (:mod:`.coactive`). Atoms without a co-active one
       are free in iterations of DB-KSVD with a mean of k non-zeros a sample, on small batches and
       then larger ones. Where features form trees hardly any atom is free.
    3. Polishing: iterations of DB-KSVD on many samples, coded with a mean of k non-zeros under
       penalties that are larger for rare atoms (:mod:`.penalties`). Penalties are in proportion to
       the squared norm of the sample, so that a sample and its multiples are coded alike.
    4. Cleaning: each co-active atom is set again from those of its samples that hold least of the
       features without atoms (:mod:`.cleaning`).
    5. A share of co-active atoms: growth leaves each atom at a right angle to its co-active atoms,
       though features in their span are not (:mod:`.coactive`), so each is given a share of them.

    The bias follows the mean of the residual throughout.

    Parameters
    ----------
    task : FitTask
        ``k`` is the mean number of non-zeros; a sample has at most three times as many.

    Returns
    -------
    FitResult
        A :class:`dbksvd.Dictionary` with its penalties.

    Raises
    ------
    ValueError
        If a setting cannot be used.
    """
    # inside: the entry below is read where torch is not installed
    from dbksvd.fit.grown.growth import grow_
    from dbksvd.fit.grown.kernel_uses import list_kernel_uses
    from dbksvd.fit.grown.polishing import clean_, finish_, make_dictionary, polish_
    from dbksvd.fit.grown.settling import settle_
    from dbksvd.fit.grown.state import begin_growth, take_base_
    from dbksvd.fit.measure import measure_explained
    from dbksvd.fit.task import FitResult
    from dbksvd.fit.warm_up import warm_up

    warm_up(list_kernel_uses(task), task.device)
    settings: GrownSettings = parse(GrownSettings, task.settings, "method")
    state = begin_growth(task, settings)
    if task.base is None:
        grow_(state, task, settings)
        settle_(state, task, settings)
    else:
        take_base_(state, task)
    polish_(state, task, settings)
    if settings.cleaning:
        clean_(state, task, settings)
    finish_(state, task, settings)
    dictionary = make_dictionary(state, task)
    last = state.log[-1]
    last["fve_heldout"] = measure_explained(dictionary, task.heldout, task.device)
    summary = {
        "seconds": last["seconds"],
        "samples_seen": last["samples_seen"],
        "iterations": len(state.log),
        "mean_k": task.k,
    }
    return FitResult(dictionary, state.log, "grown", summary)


def _find_base(settings: GrownSettings) -> Base | None:
    return None if settings.warm_start is None else Base("warm_start", settings.warm_start)


def _find_unused(settings: GrownSettings) -> dict[str, str]:
    """Return the keys of growth and settling, where atoms come from another method."""
    if settings.warm_start is None:
        return {}
    keys = ("growth", "starts", "round_iterations", "damping", "samples_per_atom", "settle_iter")
    return dict.fromkeys(keys, "warm_start: null")


METHOD = Method(
    settings=GrownSettings,
    fit=fit,
    plan=count_work,
    coding=count_coding,
    label=lambda _settings: "grown DB-KSVD",
    stage="fit DB-KSVD",
    find_base=_find_base,
    find_unused=_find_unused,
)
