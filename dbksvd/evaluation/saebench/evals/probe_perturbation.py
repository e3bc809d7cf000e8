"""What tpp and scr share: SAEBench's one module for both."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbksvd.evaluation.saebench.memoise import memoise_encode
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel
from dbksvd.evaluation.saebench.random_dictionary import make_throwaway
from dbksvd.evaluation.saebench.shims import common as shims
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models.loading import LoadedModel


def configure(site: EvalSite, settings: Mapping[str, Any], **extra: Any) -> Any:
    """Return SAEBench's config.

    Settings: data (``bundled`` or ``hub``), datasets (of the hub), train_size, test_size (texts of
    each probe), context_length (tokens), n_values (latents removed), probe_epochs.
    """
    from sae_bench.evals.scr_and_tpp.eval_config import ScrAndTppEvalConfig

    return ScrAndTppEvalConfig(
        random_seed=site.seed,
        train_set_size=settings["train_size"],
        test_set_size=settings["test_size"],
        context_length=settings["context_length"],
        n_values=list(settings["n_values"]),
        probe_epochs=settings.get("probe_epochs", 20),
        llm_batch_size=32,
        llm_dtype="float32",
        model_name=site.model_name,
        **extra,
    )


def prepare_perturbation(loaded: LoadedModel, site: EvalSite, config: Any, to: Path) -> None:
    """Write activations and probes.

    SAEBench computes them on the way to the first SAE's scores: it is run once on a throw-away
    dictionary with one removal, and what it leaves behind for the next SAE is kept.
    """
    from sae_bench.evals.scr_and_tpp import main as eval_module

    device = str(loaded.device)
    config.n_values = [1]
    sae = make_throwaway(loaded.width, 2, site, device)
    with shims.use_model(eval_module, SAEBenchModel(loaded, site.model_name)):
        eval_module.run_eval(
            config, [("throwaway", sae)], device, "throwaway", artifacts_path=str(to)
        )


def run_perturbation(task: EvalTask, config: Any) -> None:
    """Score one dictionary; SAEBench's JSON goes to the task's folder.

    Raises
    ------
    ValueError
        If more latents are to be removed than there are.
    """
    from sae_bench.evals.scr_and_tpp import main as eval_module

    if max(config.n_values) > task.sae.cfg.d_sae:
        raise ValueError(
            f"n_values: expected at most {task.sae.cfg.d_sae}, the dictionary's latents, "
            f"got {max(config.n_values)}"
        )
    with shims.use_model(eval_module, None), memoise_encode(task.sae):
        eval_module.run_eval(
            config,
            [(task.name, task.sae)],
            task.device,
            "scores",
            artifacts_path=str(task.prepared),
        )
    for path in Path("scores").rglob("*.json"):
        shutil.move(path, task.output)
