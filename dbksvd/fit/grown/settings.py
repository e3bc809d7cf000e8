"""Settings of grown DB-KSVD."""

from __future__ import annotations

from typing import Literal

from dbksvd.base.settings import (
    Count,
    Fraction,
    NonNegative,
    NonNegativeInt,
    Positive,
    Text,
)
from dbksvd.fit.method import MethodSettings


class GrownSettings(MethodSettings):
    """How a dictionary grows; k is the mean number of non-zeros of a sample."""

    algorithm: Literal["grown"] = "grown"
    """DB-KSVD for true features: atoms are added in rounds, frequent features first."""
    threshold: Positive = 2.0
    """Least product with the residual at which an atom is picked during growth, in units of the
    root mean square of a centred coordinate."""
    growth: NonNegative = 0.15
    """Most atoms added in a round, as a fraction of those there are; 2 may always be added."""
    starts: Count = 96
    """Random samples of a round from which the search for new atoms begins."""
    round_iterations: Count = 2
    """Iterations of DB-KSVD in a round."""
    damping: Fraction = 0.05
    """Fraction of an update that held atoms follow: 0 never changes them, 1 updates them fully.
    Held are the atoms of earlier rounds during growth, and co-active atoms while the dictionary
    settles."""
    samples_per_atom: Count = 100
    """Samples of each step of a round, per atom; at least 10,000 and at most 50,000 in all."""
    settle_iter: NonNegativeInt = 40
    """Iterations after growth if no atom is co-active, fewer in proportion to those that are; 0
    leaves settling out."""
    polish_iter: Count = 1
    """Iterations after settling, on 200 samples per atom, coded with penalties."""
    cleaning: Fraction = 0.3
    """Fraction of its samples from which each co-active atom is set again after polishing; 0 leaves
    cleaning out."""
    coactive_share: NonNegative = 0.125
    """Weight with which its co-active atoms are added to an atom at the end; 0 leaves this out."""
    bias: Literal["zero", "mean"] = "zero"
    """What the bias starts from: zero, or the mean of the samples; the fit learns it."""
    checkpoint_seconds: NonNegative = 60.0
    """Least time between two checkpoints, in seconds; only growth writes them."""
    warm_start: Text | None = None
    """Another method of the experiment, whose atoms are polished; nothing grows or settles."""
