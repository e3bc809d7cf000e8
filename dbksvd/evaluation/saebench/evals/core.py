"""core: reconstruction and sparsity, and for a causal model the CE loss and KL it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbksvd.base.headline import Headline
from dbksvd.base.settings import Count
from dbksvd.evaluation.saebench.data.settings import (
    ContextLength,
    TextSettings,
    list_bundled_texts,
    list_hub_data,
)
from dbksvd.evaluation.saebench.entry import Eval, EvalTexts

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.replay import ReplayModel
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel
    from dbksvd.models.sizes import ModelKind


class CoreSettings(TextSettings):
    """SAEBench's core: reconstruction, sparsity, and CE loss and KL of a causal model."""

    hub_default = ("Skylion007/openwebtext",)

    texts: Count = 256
    """Prompts: texts cut to the context length, for a causal model rows of packed text."""
    context_length: ContextLength = 64
    """Tokens of a prompt."""
    batch_size: Count = 16
    """Prompts in a batch: the dense codes of a batch are in memory at the same time."""
    ce_loss: bool | None = None
    """Whether CE loss and KL are computed; null: where the model has a language-model head."""


def wants_loss(settings: CoreSettings, kind: ModelKind | None) -> bool:
    """Whether CE loss and KL are computed on a kind of model (None: not known yet)."""
    if settings.ce_loss is None:
        return kind == "causal"
    return settings.ce_loss and kind != "encoder"


def check(settings: CoreSettings, kind: ModelKind | None) -> None:
    """Refuse a loss where the model has no language-model head."""
    if settings.ce_loss and kind == "encoder":
        raise ValueError(
            "ce_loss: expected a causal language model, got an encoder, "
            "which has no language-model head and so no CE loss"
        )


def cost(settings: CoreSettings, kind: ModelKind) -> EvalTexts:
    """Count the prompts: read and coded once, and for the loss once more from the site on."""
    tokens = settings.texts * settings.context_length
    if not wants_loss(settings, kind):
        return EvalTexts(tokens, tokens, tokens, tokens)
    # Once the whole model, twice its logits; and the last block's output beside the site's.
    return EvalTexts(2 * tokens, 2 * tokens, 2 * tokens, tokens, tokens)


def prepare(loaded: LoadedModel, site: EvalSite, settings: CoreSettings, to: Path) -> None:
    """Record the activations of the prompts, and the losses that no dictionary changes.

    Saves per dictionary a forward pass over all prompts, and where there are losses the whole model
    twice, once with the site zeroed.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : CoreSettings
        Which prompts, how many and how long.
    to : path
        An empty folder.
    """
    from dbksvd.evaluation.saebench.data.bundled import pack_tokens, read_texts
    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.replay import write_record

    model = SAEBenchModel(loaded, site.model_name)
    length = settings.context_length
    if loaded.kind == "causal":
        tokens = pack_tokens(settings, model.tokenizer, settings.texts, length)
    else:
        tokens = model.tokenizer(
            read_texts(settings, settings.texts),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )["input_ids"]
    write_record(model, tokens, site, to, losses=wants_loss(settings, loaded.kind))


def run(task: EvalTask) -> None:
    """SAEBench's core over the recorded activations.

    Its variance explained depends on the scale of the data; the right value over the same tokens
    goes to ``corrections.json``.
    """
    import torch
    from sae_bench.evals.core import main as core
    from sae_bench.sae_bench_utils import general_utils

    from dbksvd.base.files import write_json
    from dbksvd.base.variance import ExplainedVariance
    from dbksvd.dictionaries.decoding import decode_in
    from dbksvd.evaluation.saebench.memoise import memoise_encode
    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.replay import ReplayModel, read_record
    from dbksvd.evaluation.saebench.results import CORRECTIONS
    from dbksvd.evaluation.saebench.shims import common

    with_loss = wants_loss(task.settings, task.site.kind)
    model = ReplayModel(
        read_record(task.prepared, task.device, task.site.norm_limit),
        SAEBenchModel(task.load_model(), task.site.model_name) if with_loss else None,
        task.site,
    )
    config = _configure(task, model, with_loss=with_loss)
    sae_id, sae, _ = general_utils.load_and_format_sae(task.name, task.sae, task.device)  # type: ignore[misc]
    variance = ExplainedVariance(sae.cfg.d_in, task.device)

    def observe(latents: Tensor) -> None:
        if model.is_replaying:
            inputs, scored = model.read_scored()
            latents = latents.to_dense() if latents.is_sparse else latents
            variance.add(inputs[scored], decode_in(torch.float64, sae, latents[scored]))

    with (
        common.observe_decode(sae, observe),
        common.use_losses(core, model.measure_losses),
        memoise_encode(sae),  # both parts of core code the same texts
    ):
        metrics, features = core.run_evals(
            sae, model, model, config, ignore_tokens={ReplayModel.IGNORED}
        )
    metrics = common.fill_missing_metrics(metrics)
    metrics["misc_metrics"] = core.calculate_misc_metrics(features)
    result = {
        "sae_set": task.name,
        "sae_id": sae_id,
        "metrics": metrics,
        "feature_metrics": features,
    }
    core.save_single_eval_result(
        core.replace_nans_with_negative_one({**result, "eval_cfg": config}),
        core.get_eval_uuid(),
        core.get_sae_lens_version(),
        core.get_sae_bench_version(),
        general_utils.get_results_filepath(str(task.output), task.name, sae_id),
        sae,
    )
    write_json(task.output / CORRECTIONS, {"explained_variance_corrected": variance.compute()})


def _configure(task: EvalTask, model: ReplayModel, *, with_loss: bool) -> Any:
    """Return SAEBench's config: all recorded prompts, in batches."""
    from sae_bench.evals.core.eval_config import CoreEvalConfig

    settings: CoreSettings = task.settings
    batches = -(-len(model.tokens) // settings.batch_size)
    return CoreEvalConfig(
        model_name=task.site.model_name,
        batch_size_prompts=settings.batch_size,
        n_eval_sparsity_variance_batches=batches,
        n_eval_reconstruction_batches=batches if with_loss else 1,
        compute_ce_loss=with_loss,
        compute_kl=with_loss,
        # Dictionaries are fitted on text tokens: bos, eos, pad and sinks keep their activations.
        exclude_special_tokens_from_reconstruction=True,
        dataset=", ".join(settings.datasets),
        context_size=model.context_size,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
    )


EVAL = Eval(
    settings=CoreSettings,
    prepare=prepare,
    run=run,
    headlines=(Headline("CE loss score", "core", "ce_loss_score", floor=0.0),),
    cost=cost,
    datasets=list_bundled_texts,
    hub=list_hub_data,
    check=check,
    scores_places=True,
)
