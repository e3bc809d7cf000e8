"""Consensus as a method: fits of several seeds pooled into one dictionary. No torch at import.

What was tried, with numbers, is in ``docs/consensus.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbksvd.base.work import Work
from dbksvd.fit.consensus.settings import ConsensusSettings, plan_refit
from dbksvd.fit.ksvd.method import DBKSVD_METHOD
from dbksvd.fit.ksvd.settings import DBKSVDSettings
from dbksvd.fit.method import Base, FitSizes, Method

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask

# Distances of so many atoms, held twice while groups are found, take 3 GB.
MOST_POOLED = 20_000


def fit(task: FitTask) -> FitResult:
    """Pool the fits ``task.bases`` and refit the pool.

    1. Atoms of all fits form groups by complete linkage (:func:`.pool.pool_atoms`). The ``n_atoms``
       groups that most fits have are kept, as means of their members: an atom that one fit alone
       has is what a seed made of it.
    2. Of DB-KSVD and K-SVD, iterations of DB-KSVD on large batches go on from there, coded as the
       pooled fits code. Groups are coarser than atoms of a fit, and lose variance explained, which
       these iterations win back.
    3. Of TopK SAEs, means of the encoder's rows go with the atoms, and the SAE is trained on
       (:mod:`.sae`). Of grown dictionaries, penalties and bias are averaged alike, and atoms stay
       where they are: free to move, they leave the true features.

    Parameters
    ----------
    task : FitTask
        ``bases`` are the fits of the method that the setting ``of`` names.

    Raises
    ------
    ValueError
        If a base is of an architecture that cannot be pooled.
    """
    from dbksvd.fit.consensus.fitting import pool_and_refit

    return pool_and_refit(task)


def check_base(settings: ConsensusSettings, base: Any) -> None:
    """Refuse fits that cannot be pooled: controls, other consensuses, atoms that have an order.

    Parameters
    ----------
    settings : ConsensusSettings
        Names the method whose fits are pooled.
    base : Settings
        Settings of that method.

    Raises
    ------
    ValueError
        If its fits cannot be pooled.
    """
    is_plain = base.algorithm in ("ksvd", "grown") or (
        base.algorithm == "dbksvd" and base.groups is None
    )
    if not is_plain and not (base.algorithm == "sae" and base.architecture == "topk"):
        raise ValueError(
            "of: expected a method whose atoms can be pooled (dbksvd without groups, ksvd, grown, "
            f"or sae with architecture topk), got {settings.of!r}"
        )


def plan(settings: ConsensusSettings, sizes: FitSizes) -> Work:
    """Return the work of a fit, as of a DB-KSVD from given atoms on; the pool is compared first."""
    pooled = len(settings.seeds) * sizes.n_atoms
    told = plan_refit(settings, sizes.n_atoms, sizes.k)
    refit = DBKSVD_METHOD.plan(DBKSVDSettings(**told), sizes)
    distances = float(pooled**2)
    return refit + Work(products=2 * sizes.width * distances, memory=8 * distances)


def check_sizes(settings: ConsensusSettings, n_atoms: int, _k: int) -> None:
    """Check that the distances of all pooled atoms fit into memory.

    Raises
    ------
    ValueError
        If they do not; the message begins with the key.
    """
    pooled = len(settings.seeds) * n_atoms
    if pooled > MOST_POOLED:
        raise ValueError(
            f"seeds: expected at most {MOST_POOLED} pooled atoms, whose distances take 3 GB, got "
            f"{len(settings.seeds)} fits of {n_atoms} atoms"
        )


METHOD = Method(
    settings=ConsensusSettings,
    fit=fit,
    plan=plan,
    coding=None,
    label=lambda settings: f"consensus of {len(settings.seeds)}",
    stage="fit consensus",
    is_data_parallel=True,
    find_base=lambda settings: Base("of", settings.of, tuple(settings.seeds)),
    check_base=check_base,
    check_sizes=check_sizes,
)
