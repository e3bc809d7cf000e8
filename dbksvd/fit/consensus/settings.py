"""Settings of a consensus, and what follows from them. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from dbksvd.base.settings import Count, Fraction, NonNegative, NonNegativeInt, Seed, Text, Unique
from dbksvd.fit.ksvd.schedule import choose_batch_size
from dbksvd.fit.method import MethodSettings

# Samples of an iteration, in batches of a DB-KSVD: atoms are to be improved, not moved far; and
# iterations at the end, each on twice the samples of the one before.
REFIT_BATCHES, DOUBLINGS = 4, 2


class ConsensusSettings(MethodSettings):
    """One dictionary out of several fits of another method, which differ in their seeds only.

    A fit of seed s pools fits of its own: those of seed 0 are shifted by
    s x (largest - smallest + 1). So consensus fits of two seeds have no fit in common, and their
    agreement is that of the procedure.
    """

    algorithm: Literal["consensus"] = "consensus"
    """The method's name in the registry."""
    of: Text
    """Name of the method whose fits are pooled: dbksvd without groups, ksvd, grown, or sae with
    architecture topk. Its fits are made whether or not a grid names them."""
    seeds: Annotated[list[Seed], Field(min_length=2), *Unique] = Field(default=[0, 1, 2, 3, 4])
    """Seeds of the fits that a fit of seed 0 pools."""
    merge_cosine: Fraction = 0.6
    """Least cosine of any two atoms of a group. Groups that most fits have become atoms."""
    refit_iter: NonNegativeInt = 8
    """Iterations of DB-KSVD from the groups on, for dbksvd and ksvd: each on 4 times the samples of
    one of its own. Two more follow on 8 and 16 times as many. 0 keeps the groups as they are."""
    training_samples: Count | None = None
    """Samples that a pooled SAE is trained on. Null: a quarter of those of the method."""
    checkpoint_seconds: NonNegative = 60.0
    """Least time between two checkpoints, in seconds."""


def plan_refit(settings: ConsensusSettings, n_atoms: int, k: int) -> dict[str, Any]:
    """Return the settings of DB-KSVD that say how long the refit is, on which samples."""
    return {
        "max_iter": max(1, settings.refit_iter),
        "polish_iter": DOUBLINGS,
        "batch_size": REFIT_BATCHES * choose_batch_size(n_atoms, k),
        "heldout_every": 0,
        "checkpoint_seconds": settings.checkpoint_seconds,
    }
