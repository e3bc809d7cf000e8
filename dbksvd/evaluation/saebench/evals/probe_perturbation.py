"""What tpp and scr share: SAEBench's one module for both."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from dbksvd.base.settings import Count
from dbksvd.evaluation.saebench.data.names import HUB, HUB_CROSSED
from dbksvd.evaluation.saebench.data.settings import UNIQUE, ContextLength, LabelledSettings
from dbksvd.evaluation.saebench.entry import EvalTexts

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel
    from dbksvd.models.sizes import ModelKind

# Told below tables that show either.
UNRELIABLE = (
    "TPP and SCR are shown because SAEBench has them: an audit of reliability (arXiv 2605.18229) "
    "finds that both fail as measures."
)

Removals = Annotated[list[Literal[2, 5, 10, 20, 50, 100, 500]], Field(min_length=1), UNIQUE]


class PerturbationSettings(LabelledSettings):
    """What tpp and scr can be told."""

    hub_default = HUB_CROSSED

    train_size: Count = 800
    """Texts that a probe is trained on, half of them of its class."""
    test_size: Count = 200
    """Texts that a probe is tested on, half of them of its class."""
    context_length: ContextLength = 64
    """Tokens of a text that are read."""
    n_values: Removals = Field([2, 5, 10, 20, 50, 100])
    """Numbers of latents that are removed, at most as many as the narrowest dictionary has."""
    probe_epochs: Count = 20
    """Passes over the texts in training a probe."""


def cost(settings: PerturbationSettings, _kind: ModelKind) -> EvalTexts:
    """Count the texts of all classes, coded once and decoded for each removal."""
    # Hub: 2 sets with 4 pairs of classes (scr) or 5 classes (tpp); bundled: one set.
    classes = 16 if settings.data == HUB else 3
    texts = (settings.train_size + settings.test_size) / 2 * settings.context_length
    removed = len(settings.n_values) * classes
    tokens = classes * texts
    return EvalTexts(tokens, tokens, 6 * texts, tokens * (1 + removed / 10), 0, classes, classes)


def configure(site: EvalSite, settings: PerturbationSettings, **extra: Any) -> Any:
    """Return SAEBench's config."""
    from sae_bench.evals.scr_and_tpp.eval_config import ScrAndTppEvalConfig

    return ScrAndTppEvalConfig(
        random_seed=site.seed,
        train_set_size=settings.train_size,
        test_set_size=settings.test_size,
        context_length=settings.context_length,
        n_values=list(settings.n_values),
        probe_epochs=settings.probe_epochs,
        llm_batch_size=32,
        llm_dtype="float32",
        model_name=site.model_name,
        **extra,
    )


def prepare_perturbation(loaded: LoadedModel, site: EvalSite, config: Any, to: Path) -> None:
    """Write activations and probes.

    SAEBench computes them on the way to the first SAE's scores: it is run once on a random
    dictionary with one removal, and what it leaves behind for the next SAE is kept.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    config : ScrAndTppEvalConfig
        From `configure`; its removals are changed.
    to : path
        An empty folder.
    """
    from sae_bench.evals.scr_and_tpp import main as eval_module

    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.random_dictionary import make_random_dictionary
    from dbksvd.evaluation.saebench.shims import common
    from dbksvd.evaluation.saebench.shims.norm_limit import zero_over

    device = str(loaded.device)
    config.n_values = [1]
    sae = make_random_dictionary(loaded.width, 2, site, device)
    model = SAEBenchModel(loaded, site.model_name)
    with (
        common.use_model(eval_module, model),
        common.read_in_order_of_length(model),
        zero_over(site.norm_limit),
    ):
        eval_module.run_eval(config, [("random", sae)], device, "random", artifacts_path=str(to))


def run_perturbation(task: EvalTask, config: Any) -> None:
    """Score one dictionary; SAEBench's JSON goes to the task's folder.

    Raises
    ------
    ValueError
        If more latents are to be removed than there are.
    """
    from sae_bench.evals.scr_and_tpp import main as eval_module

    from dbksvd.evaluation.saebench.memoise import memoise_encode
    from dbksvd.evaluation.saebench.shims import common

    if max(config.n_values) > task.sae.cfg.d_sae:
        raise ValueError(
            f"n_values: expected at most {task.sae.cfg.d_sae}, the dictionary's latents, "
            f"got {max(config.n_values)}"
        )
    with common.use_model(eval_module, None), memoise_encode(task.sae):
        eval_module.run_eval(
            config,
            [(task.name, task.sae)],
            task.device,
            "scores",
            artifacts_path=str(task.prepared),
        )
    for path in Path("scores").rglob("*.json"):
        shutil.move(path, task.output)
