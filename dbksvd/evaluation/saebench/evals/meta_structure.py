"""meta_structure: how far the atoms themselves are explained by a smaller sparse dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.base.headline import Headline
from dbksvd.base.settings import Count, Positive, Settings
from dbksvd.evaluation.saebench.entry import Eval

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.task import EvalTask


class MetaStructureSettings(Settings):
    """SAEBench's meta_structure: a small SAE trained on the atoms; it reads no text."""

    train_steps: Count = 1500
    """Steps of training the smaller dictionary."""
    batch_size: Count = 1024
    """Atoms of a step."""
    k: Count = 4
    """Non-zeros that explain an atom."""
    width_ratio: Positive = 0.25
    """Size of the smaller dictionary, in proportion to the number of atoms."""


def run(task: EvalTask) -> None:
    """SAEBench's meta_structure."""
    from sae_bench.evals.meta_structure import main as eval_module
    from sae_bench.evals.meta_structure.eval_config import MetaStructureEvalConfig

    settings: MetaStructureSettings = task.settings
    config = MetaStructureEvalConfig(
        random_seed=task.site.seed,  # stated only: the seed itself is set before every eval
        train_steps=settings.train_steps,
        train_batch_size=settings.batch_size,
        k=settings.k,
        width_ratio=settings.width_ratio,
        autocast=task.device != "cpu",
    )
    eval_module.run_eval(config, [(task.name, task.sae)], task.device, str(task.output))  # type: ignore[list-item]


EVAL = Eval(
    scores_places=True,
    settings=MetaStructureSettings,
    run=run,
    headlines=(
        Headline("meta-structure", "meta_structure", "decoder_fraction_variance_explained"),
    ),
)
