"""sparse_probing_sae_probes: k-sparse probes on the data sets that sae-probes carries."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dbksvd.evaluation.saebench.data.bundled import read_bundled
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel
from dbksvd.evaluation.saebench.shims import common as shims
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models.loading import LoadedModel


class LastTextTokenModel(SAEBenchModel):
    """What sae-probes drives an encoder by: its last position reads the last token of the text.

    sae-probes probes the activation at the last position, which is a word in the causal models it
    was written for and ``[SEP]`` in an encoder. Dictionaries are fitted on text tokens only, so
    outputs are moved on by one position: the last one then holds the token before ``[SEP]``.
    """

    def run_with_cache(
        self, tokens: Tensor | Sequence[str], **kwargs: Any
    ) -> tuple[None, dict[str, Tensor]]:
        """As the base class, moved on by one position for an encoder."""
        _, cache = super().run_with_cache(tokens, **kwargs)
        if self.is_causal:
            return None, cache
        return None, {name: output.roll(1, dims=1) for name, output in cache.items()}


def prepare(loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path) -> None:
    """Activations and raw-activation probes.

    Saves, for four sets, 64 s of 67 s per dictionary. Settings: datasets, rows (texts of each),
    context_length (tokens).
    """
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


def run(task: EvalTask) -> None:
    """SAEBench's sparse_probing_sae_probes. Settings: ks (latents per probe), reg_type."""
    from sae_bench.evals.sparse_probing_sae_probes import main as eval_module
    from sae_bench.evals.sparse_probing_sae_probes.eval_config import (
        SparseProbingSaeProbesEvalConfig,
    )

    # sae-probes opens a folder for writing beside the raw-activation scores: it gets copies.
    baseline = f"baseline_results_{task.site.model_name}"
    shutil.copytree(task.prepared / baseline, Path("results") / baseline)
    config = SparseProbingSaeProbesEvalConfig(
        model_name=task.site.model_name,
        random_seed=task.site.seed,
        dataset_names=list(task.settings["datasets"]),
        reg_type=task.settings.get("reg_type", "l1"),
        ks=list(task.settings.get("ks", (1, 2, 5))),
        results_path="results",
        model_cache_path=str(task.prepared),
    )
    with shims.limit_rows(task.settings["rows"]), shims.quiet_probes():
        eval_module.run_eval(config, [(task.name, task.sae)], task.device, str(task.output))
