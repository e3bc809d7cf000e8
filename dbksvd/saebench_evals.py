"""The evals of SAEBench that :mod:`dbksvd.saebench` runs, each a pair of functions.

``prepare_*`` writes what no dictionary changes; ``run_*`` scores one SAE with it and leaves
SAEBench's JSON in a folder. Imports of SAEBench are inside: they take ten seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dbksvd import saebench_shims as shims
from dbksvd.files import write_json
from dbksvd.saebench_model import EvalSite, LastTextTokenModel, RecordedModel, SAEBenchModel
from dbksvd.scores import CORRECTIONS

if TYPE_CHECKING:
    from sae_lens import SAE

    from dbksvd.models import LoadedModel


def read_bundled(name: str) -> pd.DataFrame:
    """Return a data set bundled with sae-probes, with columns prompt and target.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    from sae_probes.constants import DATA_PATH

    path = DATA_PATH / "cleaned_data" / f"{name}.csv.zst"
    if not path.is_file():
        raise ValueError(f"datasets: sae-probes carries no data set {name!r}")
    return pd.read_csv(path)


def read_texts(datasets: Iterable[str], n_texts: int) -> list[str]:
    """Return `n_texts` prompts of bundled data sets, about as many of each, in file order."""
    columns = [read_bundled(name)["prompt"].astype(str).tolist() for name in datasets]
    share = -(-n_texts // len(columns))
    return [text for column in columns for text in column[:share]][:n_texts]


# --- core: reconstruction and sparsity ----------------------------------------------------------


def prepare_core(
    loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path
) -> None:
    """Record activations of prompts. Settings: datasets, texts, context_length (tokens)."""
    model = SAEBenchModel(loaded, site.model_name)
    tokens = model.tokenizer(
        read_texts(settings["datasets"], settings["texts"]),
        padding="max_length",
        truncation=True,
        max_length=settings["context_length"],
        return_tensors="pt",
    )["input_ids"]
    _, cache = model.run_with_cache(tokens, names_filter=site.hook, stop_at_layer=site.layer)
    tokens = tokens.masked_fill(~model.mask_text(tokens), RecordedModel.IGNORED)
    save_file({"tokens": tokens, "activations": cache[site.hook].cpu()}, to / "record.safetensors")


def run_core(
    sae: SAE[Any], name: str, site: EvalSite, settings: Mapping[str, Any], prepared: Path, to: Path
) -> None:
    """SAEBench's core without CE loss and KL, which an encoder has not. Setting: batch_size.

    Its variance explained depends on the scale of the data; the right value over the same tokens
    goes to `CORRECTIONS`.
    """
    from sae_bench.evals.core import main as core
    from sae_bench.evals.core.eval_config import CoreEvalConfig
    from sae_bench.sae_bench_utils import general_utils
    from sae_lens.evals import ExplainedVarianceCalculator

    record = load_file(prepared / "record.safetensors")
    model = RecordedModel(record["tokens"], record["activations"])
    batch_size = settings.get("batch_size", 16)
    config = CoreEvalConfig(
        model_name=site.model_name,
        batch_size_prompts=batch_size,
        n_eval_sparsity_variance_batches=-(-len(model.tokens) // batch_size),
        dataset=", ".join(settings["datasets"]),
        context_size=model.context_size,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
    )
    variance = ExplainedVarianceCalculator()

    def observe(reconstruction: Tensor) -> None:
        inputs, scored = model.read_scored()
        variance.add_batch(reconstruction[scored], inputs[scored])

    sae_id, sae, _ = general_utils.load_and_format_sae(name, sae, "cpu")  # type: ignore[misc]
    with shims.observe_decode(sae, observe):
        metrics, features = core.run_evals(
            sae, model, model, config, ignore_tokens={RecordedModel.IGNORED}
        )
    metrics = shims.fill_missing_metrics(metrics)
    metrics["misc_metrics"] = core.calculate_misc_metrics(features)
    result = {"sae_set": name, "sae_id": sae_id, "metrics": metrics, "feature_metrics": features}
    core.save_single_eval_result(
        core.replace_nans_with_negative_one({**result, "eval_cfg": config}),
        core.get_eval_uuid(),
        core.get_sae_lens_version(),
        core.get_sae_bench_version(),
        general_utils.get_results_filepath(str(to), name, sae_id),
        sae,
    )
    write_json(to / CORRECTIONS, {"explained_variance_corrected": float(variance.compute())})


# --- sparse_probing_sae_probes: k-sparse probes on bundled data sets ------------------------------


def prepare_sae_probes(
    loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path
) -> None:
    """Activations and raw-activation probes. Settings: datasets, rows, context_length (tokens)."""
    from sae_probes import DATASETS, generate_model_activations, run_baseline_evals

    datasets = list(settings["datasets"])
    for name in datasets:
        read_bundled(name)
        if name not in DATASETS:
            raise ValueError(f"datasets: {name!r} has more than two classes, sae-probes needs two")
    with shims.limit_rows(settings["rows"]), shims.quiet_probes():
        generate_model_activations.ensure_dataset_activations(
            site.model_name,
            datasets,
            [site.hook],
            to,
            device=loaded.device.type,
            max_seq_len=settings["context_length"],
            batch_size=256,  # the model below sorts by length inside a batch
            model=LastTextTokenModel(loaded, site.model_name),
        )
        run_baseline_evals(
            model_name=site.model_name,
            hook_name=site.hook,
            setting="normal",
            method="logreg",
            results_path=str(to),
            model_cache_path=str(to),
            datasets=datasets,
            device="cpu",
            seed=site.seed,
        )
    # Pickled classifiers, which nothing reads.
    shutil.rmtree(to / f"baseline_results_{site.model_name}" / "normal")


def run_sae_probes(
    sae: SAE[Any], name: str, site: EvalSite, settings: Mapping[str, Any], prepared: Path, to: Path
) -> None:
    """SAEBench's sparse_probing_sae_probes. Settings: ks (latents per probe), reg_type."""
    from sae_bench.evals.sparse_probing_sae_probes import main as eval_module
    from sae_bench.evals.sparse_probing_sae_probes.eval_config import (
        SparseProbingSaeProbesEvalConfig,
    )

    # sae-probes opens a folder for writing beside the raw-activation scores: it gets copies.
    baseline = f"baseline_results_{site.model_name}"
    shutil.copytree(prepared / baseline, Path("results") / baseline)
    config = SparseProbingSaeProbesEvalConfig(
        model_name=site.model_name,
        random_seed=site.seed,
        dataset_names=list(settings["datasets"]),
        reg_type=settings.get("reg_type", "l1"),
        ks=list(settings.get("ks", (1, 2, 5))),
        results_path="results",
        model_cache_path=str(prepared),
    )
    with shims.limit_rows(settings["rows"]), shims.quiet_probes():
        eval_module.run_eval(config, [(name, sae)], "cpu", str(to))


# --- sparse_probing: SAEBench's own, on AG News -------------------------------------------------


def prepare_sparse_probing(
    loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path
) -> None:
    """Activations and raw probes. Settings: train_size, test_size, context_length, k_values.

    SAEBench computes both on the way to the first SAE's scores: it is run once on a throw-away
    dictionary, and what it leaves behind for the next SAE is kept.
    """
    from sae_bench.evals.sparse_probing import main as eval_module

    from dbksvd.architectures.pursuit import PursuitSAE, PursuitSAEConfig

    count = max(settings["k_values"])
    sae = PursuitSAE(PursuitSAEConfig(d_in=loaded.width, d_sae=count, nonnegative=True))
    sae.W_dec.data = torch.nn.functional.normalize(torch.randn(count, loaded.width), dim=1)
    sae.cfg.metadata.model_name, sae.cfg.metadata.hook_name = site.model_name, site.hook
    model = SAEBenchModel(loaded, site.model_name)
    news = shims.serve_ag_news(read_ag_news())
    with news, shims.use_model(eval_module, model), shims.quiet_probes():
        eval_module.run_eval(
            _configure_sparse_probing(site, settings),
            [("throwaway", sae)],
            "cpu",
            "throwaway",
            artifacts_path=str(to),
        )


def run_sparse_probing(
    sae: SAE[Any], name: str, site: EvalSite, settings: Mapping[str, Any], prepared: Path, to: Path
) -> None:
    """SAEBench's sparse_probing over the prepared activations."""
    from sae_bench.evals.sparse_probing import main as eval_module

    with shims.serve_ag_news(None), shims.use_model(eval_module, None), shims.quiet_probes():
        config = _configure_sparse_probing(site, settings)
        eval_module.run_eval(config, [(name, sae)], "cpu", str(to), artifacts_path=str(prepared))


def read_ag_news(test_share: float = 0.2) -> dict[str, pd.DataFrame]:
    """Return the AG News texts bundled with sae-probes as "train" and "test" (text, label)."""
    frames: dict[str, list[pd.DataFrame]] = {"train": [], "test": []}
    for label, source in enumerate(shims.AG_NEWS_SOURCES):
        table = read_bundled(source)
        texts = table.loc[table["target"] == 1, "prompt"].drop_duplicates()
        table = pd.DataFrame({"text": texts, "label": label})
        n_test = int(test_share * len(table))
        frames["train"].append(table[n_test:])
        frames["test"].append(table[:n_test])
    return {split: pd.concat(parts, ignore_index=True) for split, parts in frames.items()}


def _configure_sparse_probing(site: EvalSite, settings: Mapping[str, Any]) -> Any:
    from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig

    return SparseProbingEvalConfig(
        random_seed=site.seed,
        dataset_names=[shims.AG_NEWS],
        probe_train_set_size=settings["train_size"],
        probe_test_set_size=settings["test_size"],
        context_length=settings["context_length"],
        llm_batch_size=32,
        llm_dtype="float32",
        model_name=site.model_name,
        k_values=list(settings["k_values"]),
    )
