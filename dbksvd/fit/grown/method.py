"""Grown DB-KSVD: non-negative atoms that join from general to special, for true features.

The log of what was tried, with numbers, is ``docs/identification.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dbksvd.base.old_settings import build_settings, check_at_least
from dbksvd.fit.grown.growth import Growth
from dbksvd.fit.measure import measure_explained
from dbksvd.fit.task import FitResult, FitTask


@dataclass(frozen=True)
class GrownSettings:
    """How a dictionary grows.

    Parameters
    ----------
    threshold : float
        Product with the residual that makes an atom worth picking while the dictionary grows, in
        units of the root mean square of a centred coordinate.
    growth : float
        Most atoms that join in a round, as a fraction of those there are.
    starts : int
        Candidates a round; see :func:`dbksvd.fit.grown.candidates.find_general_atoms`.
    round_iterations : int
        Iterations of DB-KSVD in a round.
    damping : float
        How far the atoms of earlier rounds follow an iteration: 0 holds them, 1 lets them go.
    samples_per_atom : int
        Samples of a round, from 10,000 to 50,000.
    settle_iter : int
        Iterations after growth, if no atom goes with another; fewer by the fraction that do.
    polish_iter : int
        Iterations after those, on 200 samples an atom, coded with penalties.
    cleaning : float
        Fraction of its samples that an atom that goes with another is set from after polishing,
        those that hold least of what has no atom (:mod:`.cleaning`); 0 leaves this out.
    sharing : float
        At the end, how much of an atom that it goes with each atom is given.
    bias : {"zero", "mean"}
        What the bias starts from; it is learned.
    checkpoint_seconds : float
        Least time between two checkpoints, in seconds; only growth has them, polishing is short.
    warm_start : str, optional
        Another method of the experiment: its atoms are polished, nothing grows.
    """

    threshold: float = 2.0
    growth: float = 0.15
    starts: int = 96
    round_iterations: int = 2
    damping: float = 0.05
    samples_per_atom: int = 100
    settle_iter: int = 40
    polish_iter: int = 1
    cleaning: float = 0.3
    sharing: float = 0.125
    bias: Literal["zero", "mean"] = "zero"
    checkpoint_seconds: float = 60.0
    warm_start: str | None = None

    def __post_init__(self) -> None:
        counts = {"starts": self.starts, "samples_per_atom": self.samples_per_atom}
        check_at_least(1, "method", **counts, round_iterations=self.round_iterations)
        check_at_least(1, "method", polish_iter=self.polish_iter)
        fractions = {"damping": self.damping, "sharing": self.sharing, "growth": self.growth}
        least = {"settle_iter": self.settle_iter, "checkpoint_seconds": self.checkpoint_seconds}
        check_at_least(0, "method", **fractions, **least)
        if not 0 <= self.cleaning <= 1:
            raise ValueError(f"method.cleaning: expected 0 to 1, got {self.cleaning!r}")
        if not self.threshold > 0:
            raise ValueError(f"method.threshold: expected more than 0, got {self.threshold!r}")
        if self.bias not in ("zero", "mean"):
            raise ValueError(f"method.bias: expected 'zero' or 'mean', got {self.bias!r}")


def fit(task: FitTask) -> FitResult:
    """Grow a dictionary, or polish that of ``task.base``.

    1. Growth. Each round codes new samples by a non-negative pursuit with one threshold, looks for
       atoms in what is left, and does a few iterations of DB-KSVD in which atoms of earlier rounds
       hardly move: free to move, a frequent atom takes on one of those that come with it.
    2. Settling: iterations as of DB-KSVD with k non-zeros a sample on average, on small batches and
       then larger ones, in which atoms are free that go with no other. Where features form trees
       there are hardly any.
    3. Polishing: iterations of DB-KSVD on many samples, coded with penalties that ask more of rare
       atoms (:mod:`.penalties`) and have k non-zeros a sample on average. What they ask
       is in proportion to the sample, so that a sample and its multiples are coded alike.
    4. Cleaning of atoms that go with another: an update from the samples in which such an atom
       comes alone, which takes out what it has of features without atoms.
    5. Sharing. An atom that never comes alone holds part of what comes with it, which then is
       missing there: each atom is given a share of those that it goes with.

    The bias follows the mean of the residual all the while.

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
    own = {name: value for name, value in task.settings.items() if name != "algorithm"}
    growth = Growth(task, build_settings(GrownSettings, own, "method"))
    if task.base is None:
        growth.grow()
        growth.settle()
    else:
        growth.start_from(task.base)
    dictionary = growth.polish()
    growth.log[-1]["fve_heldout"] = measure_explained(dictionary, task.heldout, task.device)
    last = growth.log[-1]
    summary = {
        "seconds": last["seconds"],
        "samples_seen": last["samples_seen"],
        "iterations": len(growth.log),
        "mean_k": task.k,
    }
    return FitResult(dictionary, growth.log, "grown", summary)
