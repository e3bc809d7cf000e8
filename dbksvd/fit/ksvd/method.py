"""DB-KSVD and K-SVD as methods of the workflow. No torch at import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.base.work import FLOAT, Work
from dbksvd.fit.ksvd import schedule
from dbksvd.fit.ksvd.schedule import plan_steps, split_groups
from dbksvd.fit.ksvd.settings import DBKSVDSettings, KSVDSettings
from dbksvd.fit.method import FitSizes, Method
from dbksvd.fit.pursuit_work import count_pursuit

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask

Chosen = DBKSVDSettings | KSVDSettings


def fit(task: FitTask) -> FitResult:
    """Fit :class:`dbksvd.DBKSVD` or :class:`dbksvd.KSVD`; the settings are its parameters."""
    from dbksvd.fit.ksvd.dbksvd import DBKSVD
    from dbksvd.fit.ksvd.ksvd import KSVD
    from dbksvd.fit.task import FitResult

    settings: Chosen = task.settings
    learner = KSVD if isinstance(settings, KSVDSettings) else DBKSVD
    model = learner(
        task.n_atoms,
        task.k,
        seed=task.seed,
        device=task.device,
        checkpoint=task.checkpoint,
        progress=task.ranks.is_first,
        ranks=task.ranks,
        **settings.list_arguments(),
    ).fit(task.train, heldout=task.heldout)
    model.dictionary_.metadata |= task.metadata
    last = model.log_[-1]
    summary = {
        "seconds": last["seconds"],
        "samples_seen": last["samples_seen"],
        "iterations": len(model.log_),
        "implementation": model.implementation_,
        "groups": list(model.groups_),
    }
    if model.is_mean:
        summary["mean_k"] = task.k
    return FitResult(model.dictionary_, model.log_, model.stop_reason_, summary)


def plan(settings: Chosen, sizes: FitSizes) -> Work:
    """Return the work of a fit: of each step of its plan, and of the measurements.

    A step codes its samples, group by group, and updates the atoms: with p power iterations,
    d·(4·p + 4) operations for each non-zero.
    """
    chosen = _as_dbksvd(settings)
    d, n_atoms, k = sizes.width, sizes.n_atoms, sizes.k
    steps = plan_steps(chosen, n_atoms, k, sizes.n_train)
    update = d * (4.0 * chosen.power_iterations + 4)
    refit = chosen.refit and chosen.fit_refit
    total = Work(disk=2.0 * n_atoms * d * FLOAT)
    for step in steps:
        for m in step.groups:
            budget = min(step.budget, m)
            coding = count_pursuit(d, m, budget, chosen.pursuit, refit=refit)
            total += coding.times(step.samples)
        total += Work(steps=step.samples * step.budget * len(step.groups) * update)
    every = chosen.heldout_every or len(steps)
    measurements = -(-len(steps) // every)
    total += count_coding(settings, sizes).times(sizes.n_heldout * measurements)
    largest = max(step.samples for step in steps)
    # Batch and residual, codes, Gram matrix, three dictionaries.
    held = largest * (2.0 * d + 2 * k) + n_atoms * n_atoms + 3.0 * n_atoms * d
    return total + Work(memory=held * FLOAT)


def count_coding(settings: Chosen, sizes: FitSizes) -> Work:
    """Return the work of coding one sample by the finished dictionary."""
    return count_pursuit(
        sizes.width, sizes.n_atoms, sizes.k, settings.pursuit, refit=settings.refit
    )


def label_dbksvd(settings: DBKSVDSettings) -> str:
    """Return how tables and figures call a DB-KSVD."""
    name = "DB-KSVD" if settings.groups is None else "Matryoshka DB-KSVD"
    mean = ", mean L0" if settings.sparsity == "mean" else ""
    return name + mean + _label_signs(settings)


def label_ksvd(settings: KSVDSettings) -> str:
    """Return how tables and figures call a K-SVD."""
    return "K-SVD" + _label_signs(settings)


def check_sizes(settings: Chosen, n_atoms: int, k: int) -> None:
    """Check that settings fit the atoms of a dictionary and the non-zeros of a sample.

    Raises
    ------
    ValueError
        If they do not; the message begins with the key.
    """
    chosen = _as_dbksvd(settings)
    schedule.check_sizes(chosen, n_atoms, k)
    groups = split_groups(n_atoms, chosen.groups)
    if k < len(groups):
        raise ValueError(f"k: expected at least one for each of {len(groups)} groups, got {k}")


def _label_signs(settings: Chosen) -> str:
    return "" if settings.nonnegative else ", signed"


def _as_dbksvd(settings: Chosen) -> DBKSVDSettings:
    return settings.to_dbksvd() if isinstance(settings, KSVDSettings) else settings


def find_unused(settings: Chosen) -> dict[str, str]:
    """Return the keys without effect: of another start, and of refits that are always done."""
    found: dict[str, str] = {}
    if settings.init != "doubling":
        found |= dict.fromkeys(("doubling_iterations", "doubling_samples"), "init: doubling")
    if not settings.refit:
        found["fit_refit"] = "refit: true"
    if settings.pursuit != "mp":
        found |= dict.fromkeys(("refit", "fit_refit"), "pursuit: mp")
    return found


DBKSVD_METHOD = Method(
    settings=DBKSVDSettings,
    fit=fit,
    plan=plan,
    coding=count_coding,
    label=label_dbksvd,
    stage="fit DB-KSVD",
    is_data_parallel=True,
    check_sizes=check_sizes,
    find_unused=find_unused,
)
KSVD_METHOD = Method(
    settings=KSVDSettings,
    fit=fit,
    plan=plan,
    coding=count_coding,
    label=label_ksvd,
    stage="fit K-SVD",
    is_data_parallel=True,
    check_sizes=check_sizes,
    find_unused=find_unused,
)
