"""DB-KSVD and K-SVD as methods of the workflow."""

from __future__ import annotations

from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.fit.ksvd.ksvd import KSVD
from dbksvd.fit.task import FitResult, FitTask


def fit(task: FitTask) -> FitResult:
    """Fit :class:`dbksvd.DBKSVD` or :class:`dbksvd.KSVD`; the settings are its parameters.

    Held-out variance is measured every 12 iterations (K-SVD: 4) unless ``heldout_every`` says
    otherwise.
    """
    learner, every = {"dbksvd": (DBKSVD, 12), "ksvd": (KSVD, 4)}[task.settings["algorithm"]]
    settings = {"heldout_every": every, **task.settings}
    del settings["algorithm"]
    model = learner(
        task.n_atoms,
        task.k,
        seed=task.seed,
        device=task.device,
        checkpoint=task.checkpoint,
        progress=task.ranks.is_first,
        ranks=task.ranks,
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
    if model.is_mean:
        summary["mean_k"] = task.k
    return FitResult(model.dictionary_, model.log_, model.stop_reason_, summary)
