"""How much work a fit is, counted from its settings: operations, bytes, host seconds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dbksvd.base.settings import parse
from dbksvd.base.work import FLOAT, Work
from dbksvd.dictionaries.encoder_flops import count_encoder_flops
from dbksvd.fit.ksvd.schedule import choose_batch_size, plan_steps, split_groups
from dbksvd.fit.method import FitSizes
from dbksvd.fit.registry import find_method


def count_fit(
    settings: Mapping[str, Any], n_atoms: int, k: int, d: int, n_train: int, n_heldout: int
) -> Work:
    """Return the work of one fit.

    A DB-KSVD iteration codes its samples (:func:`count_encoder_flops`) and updates the atoms: with
    p power iterations, d·(4·p + 4) operations for each non-zero. Other methods count themselves.
    """
    algorithm = settings["algorithm"]
    disk = 2.0 * n_atoms * d * FLOAT
    if algorithm in ("dbksvd", "ksvd"):
        return _count_ksvd(settings, n_atoms, k, d, n_train, n_heldout) + Work(disk=disk)
    if algorithm == "grown":
        return _count_grown(settings, n_atoms, k, d, n_train, n_heldout) + Work(disk=disk)
    method = find_method(algorithm)
    parsed: Any = parse(method.settings, settings)
    return method.plan(parsed, FitSizes(n_atoms, k, d, n_train, n_heldout))


def count_coding(settings: Mapping[str, Any], n_atoms: int, k: int, d: int) -> Work:
    """Return the work of coding one sample by the finished dictionary."""
    defaults = {"dbksvd": "ols", "ksvd": "omp", "grown": "mp"}
    if settings["algorithm"] not in defaults:
        entry = find_method(settings["algorithm"])
        assert entry.coding is not None
        parsed: Any = parse(entry.settings, settings)
        return entry.coding(parsed, FitSizes(n_atoms, k, d, 0, 0))
    method = settings.get("method", defaults[settings["algorithm"]])
    return _count_pursuit(d, n_atoms, k, method, refit=settings.get("refit", True))


def _count_pursuit(d: int, m: int, k: int, method: str, *, refit: bool) -> Work:
    cfg = {"architecture": "dbksvd", "d_in": d, "d_sae": m, "k": k, "method": method}
    products = 2.0 * d * m
    return Work(products=products, steps=count_encoder_flops({**cfg, "refit": refit}) - products)


def _times(work: Work, count: float) -> Work:
    return Work(work.model * count, work.products * count, work.steps * count)


def _count_ksvd(
    settings: Mapping[str, Any], n_atoms: int, k: int, d: int, n_train: int, n_heldout: int
) -> Work:
    chosen = _complete_ksvd(settings)
    groups = split_groups(n_atoms, chosen["groups"])
    is_exact = settings["algorithm"] == "ksvd"
    batch = n_train if is_exact else chosen["batch_size"] or choose_batch_size(n_atoms, k)
    steps = plan_steps(
        groups,
        k,
        is_grown=chosen["init"] == "grown",
        growth_iterations=chosen["growth_iterations"],
        growth_samples=chosen["growth_samples"],
        max_iter=chosen["max_iter"],
        polish_iter=0 if is_exact else chosen["polish_iter"],
        batch_size=batch,
        n_samples=n_train,
        iterations_per_batch=chosen["iterations_per_batch"],
    )
    total = Work()
    for step in steps:
        uses = step.samples * step.budget * len(step.groups)
        for m in step.groups:
            budget = min(step.budget, m)
            one = _count_pursuit(d, m, budget, chosen["method"], refit=chosen["fit_refit"])
            total += _times(one, step.samples)
        total += Work(steps=uses * d * (4.0 * chosen["power_iterations"] + 4))
    measured = n_heldout * (1 + len(steps) // (settings.get("heldout_every") or 12))
    total += _times(count_coding(settings, n_atoms, k, d), measured)
    largest = max(step.samples for step in steps)
    held = largest * (2.0 * d + 2 * k) + n_atoms * n_atoms + 3.0 * n_atoms * d
    return total + Work(memory=held * FLOAT)


def _complete_ksvd(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with the learner's own defaults."""
    from dbksvd.fit.ksvd.dbksvd import DBKSVD
    from dbksvd.fit.ksvd.ksvd import KSVD

    chosen: dict[str, Any] = {}
    for learner in (DBKSVD, KSVD) if settings["algorithm"] == "ksvd" else (DBKSVD,):
        parameters = inspect.signature(learner).parameters.values()
        chosen |= {p.name: p.default for p in parameters if p.default is not p.empty}
    return {**chosen, **settings}


def _count_grown(
    settings: Mapping[str, Any], n_atoms: int, k: int, d: int, n_train: int, n_heldout: int
) -> Work:
    """Count rounds in which as many atoms join as may, and a settling in which no atom is tied."""
    from dbksvd.fit.grown import growth
    from dbksvd.fit.grown import plan as growth_plan
    from dbksvd.fit.grown.candidates import CLIMBS
    from dbksvd.fit.grown.cleaning import DIRECTIONS, SUBSPACE_ITERATIONS
    from dbksvd.fit.grown.method import GrownSettings

    names = inspect.signature(GrownSettings).parameters
    own = {name: value for name, value in settings.items() if name in names}
    chosen = GrownSettings(**own)
    update = k * d * (4.0 * growth.POWER_ITERATIONS + 4)
    total, m = Work(), n_atoms if chosen.warm_start else 0
    while m < n_atoms:
        rows = min(n_train, growth_plan.count_round_rows(m, chosen.samples_per_atom))
        total += Work(products=rows * chosen.starts * d * 4.0 * CLIMBS)
        m = min(n_atoms, m + max(2, int(chosen.growth * m)))
        coding = _count_pursuit(d, m, min(k, m), "mp", refit=True)
        total += _times(coding, rows * (1 + chosen.round_iterations))
        total += Work(steps=rows * chosen.round_iterations * update)
    if not chosen.warm_start:
        batches = growth_plan.plan_settling(n_atoms, k, chosen.settle_iter)
        rows = sum(min(n_train, batch) for batch in batches)
        total += _times(_count_pursuit(d, n_atoms, k, "mp", refit=True), rows)
        total += Work(steps=rows * update)
    coding = count_coding(settings, n_atoms, k, d)
    rows = min(n_train, growth_plan.count_polish_rows(n_atoms))
    total += _times(coding, rows * (chosen.polish_iter + growth.CONFIRMATIONS) + n_heldout)
    total += Work(steps=rows * chosen.polish_iter * update)
    if chosen.cleaning:
        cleaned = min(n_train, growth_plan.count_cleaning_rows(n_atoms))
        total += _times(coding, cleaned)
        total += Work(products=cleaned * k * d * 4.0 * DIRECTIONS * SUBSPACE_ITERATIONS)
        rows = max(rows, cleaned)
    return total + Work(memory=(rows * (2.0 * d + 2 * k) + 3.0 * n_atoms * d) * FLOAT)
