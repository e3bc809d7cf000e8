"""mdl: bits per token of the quantised codes, over recorded activations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dbksvd.base.files import read_json, write_json
from dbksvd.evaluation.saebench.data.bundled import pack_tokens
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel
from dbksvd.evaluation.saebench.replay import RecordedStore, read_record, write_record
from dbksvd.evaluation.saebench.results import CORRECTIONS, find_result
from dbksvd.evaluation.saebench.shims import causal as shims_causal
from dbksvd.evaluation.saebench.shims import common as shims
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models.loading import LoadedModel

LARGEST = 100.0  # where SAEBench's bins end at least


def prepare(loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path) -> None:
    """Record activations.

    Saves 10 + 2 × bins × k forward passes per dictionary. Settings: datasets, data (``bundled``
    or ``hub``), texts (rows), context_length (tokens).
    """
    model = SAEBenchModel(loaded, site.model_name)
    tokens = pack_tokens(settings, model.tokenizer, settings["texts"], settings["context_length"])
    write_record(model, tokens, site, to)


def run(task: EvalTask) -> None:
    """SAEBench's mdl. Settings: num_bins, k_values, tokens (per pass), mse_threshold.

    SAEBench lists all settings and picks none: the shortest description within its threshold, or
    the shortest of all where none is, goes to `CORRECTIONS`.
    """
    shims_causal.stand_in_for_loguru()
    from sae_bench.evals.mdl import main as eval_module
    from sae_bench.evals.mdl.eval_config import MDLEvalConfig

    settings, batches = task.settings, 8
    record = read_record(task.prepared, task.device)
    config = MDLEvalConfig(
        k_values=list(settings.get("k_values", [None])),
        num_bins_values=list(settings["num_bins"]),
        random_seed=task.site.seed,
        dataset_name=", ".join(settings["datasets"]),
        context_length=settings["context_length"],
        sae_batch_size=batches,
        model_name=task.site.model_name,
        mse_epsilon_threshold=settings.get("mse_threshold", 0.01),
    )
    store = RecordedStore(record, max(1, settings["tokens"] // batches))
    largest = _find_largest(task.sae, store.rows)
    with (
        shims.use_model(eval_module, shims_causal.Placeholder()),
        shims_causal.use_store(eval_module, store),
        shims_causal.allow_no_cuda(task.device),
        shims_causal.share_config(eval_module, config),
        shims_causal.scale_latents(task.sae, LARGEST / largest),
    ):
        eval_module.run_eval(config, [(task.name, task.sae)], task.device, str(task.output))
    results = read_json(find_result(task.output))["eval_results"]
    within = [result for result in results if result["within_threshold"]] or results
    best = min(within, key=lambda result: result["description_length"])
    write_json(
        task.output / CORRECTIONS,
        {
            "description_length": best["description_length"],
            "num_bins": best["num_bins"],
            "mse_loss": best["mse_loss"],
            "within_threshold": float(best["within_threshold"]),
        },
    )


@torch.no_grad()
def _find_largest(sae: Any, rows: torch.Tensor) -> float:
    largest = max(float(sae.encode(block).max()) for block in rows.split(1024))
    return largest if largest > 0 else LARGEST
