"""What autointerp and token_matching share: SAEBench's autointerp with a judge of one's choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from dbksvd.base.settings import Count, NonNegative
from dbksvd.evaluation.saebench.data.settings import TextSettings
from dbksvd.evaluation.saebench.entry import EvalTexts

if TYPE_CHECKING:
    from pathlib import Path

    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel
    from dbksvd.models.sizes import ModelKind

# (messages, most tokens of the answer) -> answer
Judge = Callable[[list[dict[str, str]], int], str]


class LatentTextSettings(TextSettings):
    """Texts whose activations explain latents, and how many latents are judged."""

    hub_default = ("monology/pile-uncopyrighted",)

    total_tokens: Count = 100_000
    """Tokens of text that examples are taken from."""
    context_length: Annotated[int, Field(ge=22)] = 128  # SAEBench shows 21 tokens of an example
    """Tokens of a row of packed text."""
    n_latents: Count = 200
    """Latents that are judged, drawn among those that are not dead."""
    dead_latent_threshold: NonNegative = 15.0
    """Tokens that a latent fires on at least; others count as dead and are left out."""


def cost(settings: LatentTextSettings, _kind: ModelKind) -> EvalTexts:
    """Count the tokens, coded twice, and the writing and reading of prompts."""
    tokens = settings.total_tokens
    return EvalTexts(tokens, tokens, tokens, 2 * tokens, 0, 0.02 * settings.n_latents)


def prepare_texts(
    loaded: LoadedModel, site: EvalSite, settings: LatentTextSettings, to: Path
) -> None:
    """Record the activations of all texts.

    Saves two forward passes over all texts per dictionary.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : LatentTextSettings
        Which texts, how many tokens and how long rows.
    to : path
        An empty folder.
    """
    from dbksvd.evaluation.saebench.data.bundled import pack_tokens
    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.replay import write_record

    model = SAEBenchModel(loaded, site.model_name)
    length = settings.context_length
    rows = -(-settings.total_tokens // length)
    write_record(model, pack_tokens(settings, model.tokenizer, rows, length), site, to)


def run_with_judge(task: EvalTask, judge: Judge) -> None:
    """SAEBench's autointerp with `judge` in the place of its OpenAI client."""
    import torch
    from sae_bench.evals.autointerp import main as eval_module
    from sae_bench.evals.autointerp.eval_config import AutoInterpEvalConfig

    from dbksvd.evaluation.saebench.replay import ReplayTextModel, read_record
    from dbksvd.evaluation.saebench.shims import causal, common, norm_limit

    settings: LatentTextSettings = task.settings
    record = read_record(task.prepared, task.device, task.site.norm_limit)
    config = AutoInterpEvalConfig(
        model_name=task.site.model_name,
        n_latents=settings.n_latents,
        dead_latent_threshold=settings.dead_latent_threshold,
        random_seed=task.site.seed,
        dataset_name=", ".join(settings.datasets),
        llm_context_size=settings.context_length,
        llm_batch_size=64,
        llm_dtype="float32",
        total_tokens=record["ids"].numel(),
    )
    model = ReplayTextModel(task.load_model(), task.site.model_name, record)
    with (
        common.use_model(eval_module, model),
        causal.serve_tokens(record["ids"]),
        norm_limit.mask_recorded(record),
        causal.use_judge(eval_module.AutoInterp, judge),
        torch.no_grad(),
    ):
        eval_module.run_eval(config, [(task.name, task.sae)], task.device, "none", str(task.output))
