"""meta_structure: how far the atoms themselves are explained by a smaller sparse dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models.loading import LoadedModel


def prepare(_loaded: LoadedModel, _site: EvalSite, _settings: Mapping[str, Any], _to: Path) -> None:
    """Nothing: this eval reads the atoms only, so there is nothing to save."""


def run(task: EvalTask) -> None:
    """SAEBench's meta_structure. Settings: train_steps, batch_size (atoms), k, width_ratio."""
    from sae_bench.evals.meta_structure import main as eval_module
    from sae_bench.evals.meta_structure.eval_config import MetaStructureEvalConfig

    settings = task.settings
    config = MetaStructureEvalConfig(
        random_seed=task.site.seed,  # stated only: the seed itself is set before every eval
        train_steps=settings.get("train_steps", 1500),
        train_batch_size=settings.get("batch_size", 1024),
        k=settings.get("k", 4),
        width_ratio=settings.get("width_ratio", 0.25),
        autocast=task.device != "cpu",
    )
    eval_module.run_eval(config, [(task.name, task.sae)], task.device, str(task.output))  # type: ignore[list-item]
