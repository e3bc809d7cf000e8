"""How many samples DB-KSVD with its default settings sees: what an SAE is trained on by default."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from dbksvd.fit.ksvd.schedule import choose_batch_size, plan_steps


def count_samples(n_atoms: int, k: int, n_train: int) -> int:
    """Return the samples of all iterations, counted each time they are used."""
    # by name: how DB-KSVD fits has no part in the training of an SAE
    learner = import_module("dbksvd.fit.ksvd.dbksvd").DBKSVD
    defaults: dict[str, Any] = {
        name: parameter.default for name, parameter in inspect.signature(learner).parameters.items()
    }
    steps = plan_steps(
        (n_atoms,),
        k,
        is_grown=defaults["init"] == "grown",
        growth_iterations=defaults["growth_iterations"],
        growth_samples=defaults["growth_samples"],
        max_iter=defaults["max_iter"],
        polish_iter=defaults["polish_iter"],
        batch_size=defaults["batch_size"] or choose_batch_size(n_atoms, k),
        n_samples=n_train,
        iterations_per_batch=defaults["iterations_per_batch"],
    )
    return sum(step.samples for step in steps)
