"""core: reconstruction and sparsity, and for a causal model the CE loss and KL it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dbksvd.base.files import write_json
from dbksvd.evaluation.saebench.data.bundled import pack_tokens, read_texts
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel
from dbksvd.evaluation.saebench.replay import RecordedModel, read_record, write_record
from dbksvd.evaluation.saebench.results import CORRECTIONS
from dbksvd.evaluation.saebench.shims import common as shims
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from pathlib import Path

    from dbksvd.models.loading import LoadedModel


def prepare(loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path) -> None:
    """Record activations of prompts.

    Saves one forward pass over all prompts per dictionary. Settings: datasets, data (``bundled`` or
    ``hub``), texts (prompts), context_length (tokens).
    """
    model = SAEBenchModel(loaded, site.model_name)
    length = settings["context_length"]
    if loaded.kind == "causal":
        tokens = pack_tokens(settings, model.tokenizer, settings["texts"], length)
    else:
        tokens = model.tokenizer(
            read_texts(settings, settings["texts"]),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )["input_ids"]
    write_record(model, tokens, site, to)


def run(task: EvalTask) -> None:
    """SAEBench's core. Settings: batch_size (prompts), ce_loss (for a causal model; true).

    Its variance explained depends on the scale of the data; the right value over the same tokens
    goes to `CORRECTIONS`.
    """
    from sae_bench.evals.core import main as core
    from sae_bench.evals.core.eval_config import CoreEvalConfig
    from sae_bench.sae_bench_utils import general_utils
    from sae_lens.evals import ExplainedVarianceCalculator

    with_loss = task.site.kind == "causal" and task.settings.get("ce_loss", True)
    model = RecordedModel(
        read_record(task.prepared, task.device),
        SAEBenchModel(task.load_model(), task.site.model_name) if with_loss else None,
    )
    batch_size = task.settings.get("batch_size", 16)
    batches = -(-len(model.tokens) // batch_size)
    config = CoreEvalConfig(
        model_name=task.site.model_name,
        batch_size_prompts=batch_size,
        n_eval_sparsity_variance_batches=batches,
        n_eval_reconstruction_batches=batches if with_loss else 1,
        compute_ce_loss=with_loss,
        compute_kl=with_loss,
        # Dictionaries are fitted on text tokens: bos, eos and pad keep their activations.
        exclude_special_tokens_from_reconstruction=True,
        dataset=", ".join(task.settings["datasets"]),
        context_size=model.context_size,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
    )
    variance = ExplainedVarianceCalculator()

    def observe(reconstruction: Tensor) -> None:
        if model.is_replaying:
            inputs, scored = model.read_scored()
            variance.add_batch(reconstruction[scored], inputs[scored])

    sae_id, sae, _ = general_utils.load_and_format_sae(task.name, task.sae, task.device)  # type: ignore[misc]
    with shims.observe_decode(sae, observe):
        metrics, features = core.run_evals(
            sae, model, model, config, ignore_tokens={RecordedModel.IGNORED}
        )
    metrics = shims.fill_missing_metrics(metrics)
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
    write_json(
        task.output / CORRECTIONS, {"explained_variance_corrected": float(variance.compute())}
    )
