"""How much work a fit is, counted from its settings: operations, bytes, host seconds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dbksvd.base.settings import parse
from dbksvd.base.work import FLOAT, Work
from dbksvd.dictionaries.encoder_flops import count_encoder_flops
from dbksvd.fit.grown.plan import count_work
from dbksvd.fit.grown.settings import GrownSettings
from dbksvd.fit.ksvd.schedule import choose_batch_size, plan_steps, split_groups
from dbksvd.fit.method import FitSizes
from dbksvd.fit.sae.settings import complete_settings


def count_fit(
    settings: Mapping[str, Any], n_atoms: int, k: int, d: int, n_train: int, n_heldout: int
) -> Work:
    """Return the work of one fit.

    A DB-KSVD iteration codes its samples (:func:`count_encoder_flops`) and updates the atoms: with
    p power iterations, d·(4·p + 4) operations for each non-zero. An SAE's step is three times its
    forward pass, the gradients being twice that. K-means goes over the samples about twice
    (scikit-learn's mini-batches), ITDA once, and other controls read their atoms off.
    """
    algorithm = settings["algorithm"]
    disk = 2.0 * n_atoms * d * FLOAT
    if algorithm in ("dbksvd", "ksvd"):
        return _count_ksvd(settings, n_atoms, k, d, n_train, n_heldout) + Work(disk=disk)
    if algorithm == "sae":
        return _count_sae(settings, n_atoms, k, d, n_heldout) + Work(disk=disk)
    if algorithm == "grown":
        sizes = FitSizes(n_atoms, k, d, n_train, n_heldout)
        return count_work(parse(GrownSettings, settings, "method"), sizes)
    products = {
        "kmeans": 2 * 2.0 * n_train * n_atoms * d,
        "pca": 2.0 * n_train * d * d,
        "itda": 2.0 * n_train * n_atoms * d,
    }
    memory = 3.0 * n_atoms * d * FLOAT + (n_train * d * FLOAT if algorithm == "kmeans" else 0)
    return Work(products=products.get(algorithm, 0.0), memory=memory, disk=disk)


def count_coding(settings: Mapping[str, Any], n_atoms: int, k: int, d: int) -> Work:
    """Return the work of coding one sample by the finished dictionary."""
    if settings["algorithm"] == "sae":
        return Work(products=count_encoder_flops(_describe_sae(settings, n_atoms, k, d)))
    defaults = {"ksvd": "omp", "grown": "mp"}
    method = settings.get("method", defaults.get(settings["algorithm"], "ols"))
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


def _describe_sae(settings: Mapping[str, Any], n_atoms: int, k: int, d: int) -> dict[str, Any]:
    chosen = complete_settings(dict(settings))
    cfg = {**chosen, "d_in": d, "d_sae": n_atoms, "max_iterations": k}
    if chosen["architecture"] == "kron":
        cfg["n_heads"] = n_atoms // (chosen["base"] * chosen["extension"])
    return cfg


def _count_sae(settings: Mapping[str, Any], n_atoms: int, k: int, d: int, n_heldout: int) -> Work:
    chosen = complete_settings(dict(settings))
    encoder = count_encoder_flops(_describe_sae(settings, n_atoms, k, d))
    decoder = 2.0 * d * (k if chosen["architecture"] == "switch" else n_atoms)
    if chosen["architecture"] == "matryoshka_batchtopk":
        decoder *= 2  # nested: groups that double are read twice as often on average
    samples, every = chosen["training_samples"], chosen["measure_every"]
    measured = n_heldout * (1 + samples // every)
    products = 3 * samples * (encoder + decoder) + measured * (encoder + decoder)
    # Weights, gradients and Adam's two moments; latents and their gradients of a batch.
    held = 4 * 2.0 * n_atoms * d + 3.0 * chosen["batch_size"] * n_atoms
    return Work(products=products, memory=held * FLOAT)
