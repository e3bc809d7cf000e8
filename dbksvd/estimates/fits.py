"""How much work a fit is, counted from its settings: operations, bytes, host seconds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dbksvd.base.settings import parse
from dbksvd.base.work import FLOAT, Work
from dbksvd.dictionaries.encoder_flops import count_encoder_flops
from dbksvd.fit.method import FitSizes
from dbksvd.fit.pursuit_work import count_pursuit
from dbksvd.fit.registry import find_method
from dbksvd.fit.sae.settings import complete_settings


def count_fit(
    settings: Mapping[str, Any], n_atoms: int, k: int, d: int, n_train: int, n_heldout: int
) -> Work:
    """Return the work of one fit.

    DB-KSVD and K-SVD count their own. An SAE's step is three times its
    forward pass, the gradients being twice that. K-means goes over the samples about twice
    (scikit-learn's mini-batches), ITDA once, and other controls read their atoms off.
    """
    algorithm = settings["algorithm"]
    disk = 2.0 * n_atoms * d * FLOAT
    if algorithm in ("dbksvd", "ksvd"):
        method = find_method(algorithm)
        parsed = parse(method.settings, settings, "settings")
        return method.plan(parsed, FitSizes(n_atoms, k, d, n_train, n_heldout))
    if algorithm == "sae":
        return _count_sae(settings, n_atoms, k, d, n_heldout) + Work(disk=disk)
    if algorithm == "grown":
        return _count_grown(settings, n_atoms, k, d, n_train, n_heldout) + Work(disk=disk)
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
    if settings["algorithm"] in ("dbksvd", "ksvd"):
        entry = find_method(settings["algorithm"])
        assert entry.coding is not None
        parsed = parse(entry.settings, settings, "settings")
        return entry.coding(parsed, FitSizes(n_atoms, k, d, 0, 0))
    method = "mp" if settings["algorithm"] == "grown" else "ols"
    return count_pursuit(d, n_atoms, k, method, refit=True)


def _times(work: Work, count: float) -> Work:
    return Work(work.model * count, work.products * count, work.steps * count)


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
        coding = count_pursuit(d, m, min(k, m), "mp", refit=True)
        total += _times(coding, rows * (1 + chosen.round_iterations))
        total += Work(steps=rows * chosen.round_iterations * update)
    if not chosen.warm_start:
        batches = growth_plan.plan_settling(n_atoms, k, chosen.settle_iter)
        rows = sum(min(n_train, batch) for batch in batches)
        total += _times(count_pursuit(d, n_atoms, k, "mp", refit=True), rows)
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
