"""DB-KSVD as a method of the workflow."""

from __future__ import annotations

from dbksvd.fit.ksvd import DBKSVD
from dbksvd.fit.registry import FitTask
from dbksvd.fit.result import FitResult


def fit(task: FitTask) -> FitResult:
    """Fit :class:`dbksvd.DBKSVD` to the shards; the settings are its parameters.

    Held-out variance is measured every 12 iterations unless ``heldout_every`` says otherwise.
    """
    settings = {"heldout_every": 12, **task.settings}
    del settings["algorithm"]
    model = DBKSVD(
        task.n_atoms,
        task.k,
        seed=task.seed,
        device=task.device,
        checkpoint=task.checkpoint,
        progress=True,
        **settings,
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
    return FitResult(model.dictionary_, model.log_, model.stop_reason_, summary)
