"""SAEBench's autointerp with a judge of one's choice: texts prepared, answers by a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dbksvd.evaluation.saebench.data.bundled import pack_tokens
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel
from dbksvd.evaluation.saebench.replay import read_record, write_record
from dbksvd.evaluation.saebench.shims import causal as shims_causal
from dbksvd.evaluation.saebench.shims import common as shims
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models.loading import LoadedModel

# (messages, most tokens of the answer) -> answer
Judge = Callable[[list[dict[str, str]], int], str]


class RecordedTextModel(SAEBenchModel):
    """The model with its activations of known rows of tokens replayed instead of computed."""

    def __init__(self, loaded: LoadedModel, name: str, record: dict[str, Tensor]) -> None:
        super().__init__(loaded, name)
        self._activations = record["activations"]
        self._places = {tuple(row): place for place, row in enumerate(record["ids"].tolist())}

    def run_with_cache(
        self, tokens: Tensor | Sequence[str], *, names_filter: str | Sequence[str], **_kwargs: Any
    ) -> tuple[None, dict[str, Tensor]]:
        """Return the recorded activations (b, t, d) of recorded rows."""
        if not isinstance(tokens, Tensor):
            raise ValueError("tokens: expected recorded rows of token ids, got text")
        places = [self._places[tuple(row)] for row in tokens.tolist()]
        names = [names_filter] if isinstance(names_filter, str) else names_filter
        return None, dict.fromkeys(names, self._activations[places])


def prepare_texts(
    loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path
) -> None:
    """Record the activations of all texts.

    Saves two forward passes over all texts per dictionary. Settings: datasets, data (``bundled``
    or ``hub``), total_tokens, context_length (tokens).
    """
    model = SAEBenchModel(loaded, site.model_name)
    length = settings["context_length"]
    rows = -(-settings["total_tokens"] // length)
    write_record(model, pack_tokens(settings, model.tokenizer, rows, length), site, to)


def run_judged(task: EvalTask, judge: Judge) -> None:
    """SAEBench's autointerp with `judge` in the place of its OpenAI client.

    Settings: n_latents, dead_latent_threshold (activations below which a latent is left out).
    """
    from sae_bench.evals.autointerp import main as eval_module
    from sae_bench.evals.autointerp.eval_config import AutoInterpEvalConfig

    record = read_record(task.prepared, task.device)
    config = AutoInterpEvalConfig(
        model_name=task.site.model_name,
        n_latents=task.settings["n_latents"],
        dead_latent_threshold=task.settings.get("dead_latent_threshold", 15),
        random_seed=task.site.seed,
        dataset_name=", ".join(task.settings["datasets"]),
        llm_context_size=task.settings["context_length"],
        llm_batch_size=64,
        llm_dtype="float32",
        total_tokens=record["ids"].numel(),
    )
    model = RecordedTextModel(task.load_model(), task.site.model_name, record)
    with (
        shims.use_model(eval_module, model),
        shims_causal.serve_tokens(record["ids"]),
        shims_causal.use_judge(eval_module.AutoInterp, judge),
        torch.no_grad(),
    ):
        eval_module.run_eval(config, [(task.name, task.sae)], task.device, "none", str(task.output))
