"""One consensus, from the task to what is saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from dbksvd.base.clock import read_clock
from dbksvd.base.shapes import Atoms
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.dictionaries.saved import ARCHITECTURE, read_config
from dbksvd.fit.consensus.pool import Pool, describe_pool, pool_atoms, take_groups
from dbksvd.fit.consensus.settings import plan_refit
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.fit.measure import measure_explained
from dbksvd.fit.task import FitResult, FitTask, charge


def pool_and_refit(task: FitTask) -> FitResult:
    """Make a consensus; see :func:`dbksvd.fit.consensus.method.fit`.

    Raises
    ------
    ValueError
        If the bases are not all pursuits or all TopK SAEs.
    """
    found = {str(read_config(base).get("architecture")) for base in task.bases}
    if found == {"topk"}:
        from dbksvd.fit.consensus.sae import fit_saes

        return charge(fit_saes(task), task.bases)
    if found != {ARCHITECTURE}:
        raise ValueError(
            f"of: expected fits of architecture {ARCHITECTURE} or topk, got those of "
            f"{task.settings.of!r}, of {', '.join(sorted(found))}"
        )
    started = read_clock(task.device)
    bases = [Dictionary.load(base) for base in task.bases]
    coding = bases[0].settings
    atoms = [base.atoms for base in bases]
    pool = pool_atoms(atoms, task.settings.merge_cosine, nonnegative=coding.nonnegative)
    chosen = take_groups(pool, atoms, task.n_atoms)
    pooling = read_clock(task.device) - started
    if coding.penalties is not None or task.settings.refit_iter == 0:
        result = _keep(task, average_dictionaries(bases, pool, chosen), pooling)
    else:
        result = _refit(task, coding, chosen, pooling)
    if coding.threshold > 0:
        result.summary["mean_k"] = task.k
    result.summary |= describe_pool(task, pool)
    return charge(result, task.bases)


def _refit(task: FitTask, coding: PursuitSettings, atoms: Atoms, pooling: float) -> FitResult:
    """Improve pooled atoms by DB-KSVD, coded as the bases code."""
    model = DBKSVD(
        task.n_atoms,
        task.k,
        init=atoms,
        method=coding.method,
        nonnegative=coding.nonnegative,
        refit=coding.refit,
        rtol=coding.rtol,
        product_dtype=coding.product_dtype,
        sparsity="mean" if coding.threshold > 0 else "exact",
        seed=task.seed,
        device=task.device,
        checkpoint=task.checkpoint,
        progress=task.ranks.is_first,
        ranks=task.ranks,
        **plan_refit(task.settings, task.n_atoms, task.k),
    ).fit(task.train, heldout=task.heldout)
    model.dictionary_.metadata |= task.metadata
    log = [{**row, "seconds": row["seconds"] + pooling} for row in model.log_]
    summary = {
        "seconds": log[-1]["seconds"],
        "samples_seen": log[-1]["samples_seen"],
        "iterations": len(log),
        "implementation": model.implementation_,
    }
    return FitResult(model.dictionary_, log, model.stop_reason_, summary)


def _keep(task: FitTask, dictionary: Dictionary, pooling: float) -> FitResult:
    """Return pooled atoms as they are."""
    dictionary.metadata |= task.metadata
    told: dict[str, Any] = {"seconds": pooling, "samples_seen": 0}
    fve = measure_explained(dictionary, task.heldout, task.device, task.ranks)
    row = {**told, "iteration": 1, "fve_heldout": fve}
    return FitResult(dictionary, [row], "closed form", {**told, "iterations": 0})


def average_dictionaries(bases: Sequence[Dictionary], pool: Pool, atoms: Atoms) -> Dictionary:
    """Return a dictionary of pooled atoms that codes with the means of what its bases learned.

    Parameters
    ----------
    bases : sequence of Dictionary
        Dictionaries of one method.
    pool : Pool
        Their atoms in groups.
    atoms : tensor of shape (m, d)
        Unit means of the first groups.

    Returns
    -------
    Dictionary
        Bias and threshold are means over the bases, the penalty of an atom is that over its group.
    """
    coding = bases[0].settings
    threshold = sum(base.settings.threshold for base in bases) / len(bases)
    changes: dict[str, Any] = {"threshold": threshold}
    if coding.penalties is not None:
        told = torch.cat([torch.tensor(base.settings.penalties) for base in bases])
        found = pool.average(told)[: len(atoms)].tolist()
        # atoms behind the groups are of no use yet: they are asked for most
        changes["penalties"] = (*found, *[max(found)] * (len(atoms) - len(found)))
    bias = torch.stack([base.bias for base in bases]).mean(dim=0)
    return Dictionary(atoms, bias, replace(coding, **changes))
