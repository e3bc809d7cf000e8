"""mdl: bits per token of the quantised codes, over recorded activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from dbksvd.base.headline import Headline
from dbksvd.base.settings import Count, Positive
from dbksvd.evaluation.saebench.data.settings import (
    ContextLength,
    TextSettings,
    list_bundled_texts,
    list_hub_data,
)
from dbksvd.evaluation.saebench.entry import Eval, EvalTexts

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel
    from dbksvd.models.sizes import ModelKind

LARGEST = 100.0  # where SAEBench's bins end at least
BATCHES = 8  # of a pass


class MDLSettings(TextSettings):
    """SAEBench's mdl: how short the codes can be described."""

    hub_default = ("HuggingFaceFW/fineweb",)

    texts: Count = 128
    """Rows of packed text."""
    context_length: ContextLength = 128
    """Tokens of a row."""
    num_bins: list[Count] = Field([8, 16, 32], min_length=1)
    """Numbers of bins that the codes are quantised into, each tried."""
    k_values: list[Count | None] = Field([None], min_length=1)
    """Numbers of latents that are kept in each code, each tried; null keeps all."""
    tokens: Count = 4096
    """Tokens of each pass; the rows are read again where they end."""
    mse_threshold: Positive = 0.01
    """Mean squared error that quantising may add."""


def cost(settings: MDLSettings, _kind: ModelKind) -> EvalTexts:
    """Count the tokens of the rows, which all passes read again."""
    stored = settings.texts * settings.context_length
    return EvalTexts(stored, stored, stored, stored)


def prepare(loaded: LoadedModel, site: EvalSite, settings: MDLSettings, to: Path) -> None:
    """Record activations.

    Saves 10 + 2 × bins × k forward passes per dictionary.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : MDLSettings
        Which texts, how many rows and how long.
    to : path
        An empty folder.
    """
    from dbksvd.evaluation.saebench.data.bundled import pack_tokens
    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.replay import write_record

    model = SAEBenchModel(loaded, site.model_name)
    tokens = pack_tokens(settings, model.tokenizer, settings.texts, settings.context_length)
    write_record(model, tokens, site, to)


def run(task: EvalTask) -> None:
    """SAEBench's mdl over the recorded activations.

    SAEBench lists the description of every number of bins and latents and picks none: the shortest
    within its threshold, or the shortest of all where none is, goes to ``corrections.json``.
    """
    from dbksvd.base.files import read_json, write_json
    from dbksvd.evaluation.saebench.memoise import memoise_encode
    from dbksvd.evaluation.saebench.replay import ReplayStore, read_record
    from dbksvd.evaluation.saebench.results import CORRECTIONS, find_result
    from dbksvd.evaluation.saebench.shims import causal, common, mdl_entropy

    causal.stand_in_for_loguru()
    from sae_bench.evals.mdl import main as eval_module
    from sae_bench.evals.mdl.eval_config import MDLEvalConfig

    settings: MDLSettings = task.settings
    record = read_record(task.prepared, task.device, task.site.norm_limit)
    config = MDLEvalConfig(
        k_values=list(settings.k_values),
        num_bins_values=list(settings.num_bins),
        random_seed=task.site.seed,
        dataset_name=", ".join(settings.datasets),
        context_length=settings.context_length,
        sae_batch_size=BATCHES,
        model_name=task.site.model_name,
        mse_epsilon_threshold=settings.mse_threshold,
    )
    store = ReplayStore(record, max(1, settings.tokens // BATCHES))
    with (
        memoise_encode(task.sae),  # the store begins anew where it ends
        common.use_model(eval_module, causal.Placeholder()),
        causal.use_store(eval_module, store),
        causal.allow_no_cuda(task.device),
        causal.share_config(eval_module, config),
        mdl_entropy.count_once(eval_module),
        causal.scale_latents(task.sae, LARGEST / _find_largest(task.sae, store.rows)),
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


def _find_largest(sae: Any, rows: torch.Tensor) -> float:
    """Return the largest latent over rows (n, d); `LARGEST` where all are zero."""
    import torch

    with torch.no_grad():
        largest = max(float(sae.encode(block[:, None]).max()) for block in rows.split(1024))
    return largest if largest > 0 else LARGEST


EVAL = Eval(
    settings=MDLSettings,
    prepare=prepare,
    run=run,
    headlines=(
        Headline("description length, bits", "mdl", "description_length", 0, lower_is_better=True),
    ),
    cost=cost,
    datasets=list_bundled_texts,
    hub=list_hub_data,
    scores_places=True,
)
