"""Probes of sae-probes trained again on other splits of the same texts, by its own functions."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

import torch

from dbksvd.evaluation.saebench.shims import common
from dbksvd.evaluation.saebench.shims.probes import quick_probes

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.evals.sae_probes import SAEProbesSettings
    from dbksvd.evaluation.saebench.task import EvalTask

# As sae-probes splits: so many texts to train on, or all but so many.
MOST_TRAINED, LEAST_TESTED = 1024, 100
MOST_ROWS = 5000
BATCH = 128  # texts
COUNTS = (1, 5)  # latents that a probe sees: those that tables show


@torch.inference_mode()
def probe_again(task: EvalTask) -> dict[str, dict[str, list[float]]]:
    """Return the accuracy of probes on further splits, by metric and data set.

    Split r is that of the seed of the eval plus r: texts to train on and to test on, the latents
    that a probe sees, its penalty and its fit are all chosen anew, as by ``run_sae_eval`` of
    sae-probes. Texts are coded once.

    Parameters
    ----------
    task : EvalTask
        Of sparse_probing_sae_probes.

    Returns
    -------
    dict
        ``{"sae_top_1_test_accuracy": {data set: [accuracy of each further split]}}``.
    """
    settings: SAEProbesSettings = task.settings
    found: dict[str, dict[str, list[float]]] = {}
    with common.limit_rows(settings.rows), common.quiet_probes(), quick_probes():
        for dataset in settings.datasets:
            for count, accuracy in _probe(task, dataset):
                by_dataset = found.setdefault(f"sae_top_{count}_test_accuracy", {})
                by_dataset.setdefault(dataset, []).append(accuracy)
    return found


def _probe(task: EvalTask, dataset: str) -> Iterator[tuple[int, float]]:
    """Yield (latents that a probe sees, its accuracy) of each further split of a data set."""
    data, probes, evals = (
        import_module(f"sae_probes.{name}")
        for name in ("utils_data", "utils_training", "run_sae_evals")
    )
    settings: SAEProbesSettings = task.settings
    x, y = data.get_xyvals(
        dataset,
        task.site.hook,
        task.site.model_name,
        MAX_AMT=MOST_ROWS,
        model_cache_path=str(task.prepared),
    )
    latents = torch.cat(
        [task.sae.encode(rows.to(task.device)).cpu().float() for rows in x.split(BATCH)]
    )
    labels = torch.as_tensor(y)
    n_train = min(len(y) - LEAST_TESTED, MOST_TRAINED)
    for split in range(1, settings.resplits + 1):
        seed = task.site.seed + split
        train, test = data.get_train_test_indices(y, n_train, len(y) - n_train - 1, seed=seed)
        order = evals.get_sorted_indices(
            latents[train], labels[train], evals.mean_act_normalization
        )
        for count in [count for count in settings.ks if count in COUNTS]:
            seen = order[:count]
            done = probes.find_best_reg(
                X_train=latents[train][:, seen],
                y_train=labels[train],
                X_test=latents[test][:, seen],
                y_test=labels[test],
                penalty=settings.reg_type,
                seed=seed,
            )
            yield count, done.metrics.test_acc
