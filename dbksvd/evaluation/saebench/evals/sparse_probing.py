"""sparse_probing: SAEBench's own k-sparse probes, on bundled AG News or on its own eight sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbksvd.evaluation.saebench.data.labelled import serve_topics
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel
from dbksvd.evaluation.saebench.random_dictionary import make_throwaway
from dbksvd.evaluation.saebench.registry import list_hub_names
from dbksvd.evaluation.saebench.shims import common as shims
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models.loading import LoadedModel


def prepare(loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path) -> None:
    """Activations and raw probes.

    SAEBench computes both on the way to the first SAE's scores: it is run once on a throw-away
    dictionary, and what it leaves behind for the next SAE is kept: two thirds of the time of a
    dictionary. Settings: data (``bundled`` or ``hub``), datasets (of the hub), train_size,
    test_size (texts), context_length (tokens), k_values.
    """
    from sae_bench.evals.sparse_probing import main as eval_module

    device = str(loaded.device)
    sae = make_throwaway(loaded.width, max(settings["k_values"]), site, device)
    model = SAEBenchModel(loaded, site.model_name)
    texts = serve_topics(settings, is_recorded=False)
    with texts, shims.use_model(eval_module, model), shims.quiet_probes():
        eval_module.run_eval(
            _configure(site, settings),
            [("throwaway", sae)],
            device,
            "throwaway",
            artifacts_path=str(to),
        )


def run(task: EvalTask) -> None:
    """SAEBench's sparse_probing over the prepared activations."""
    from sae_bench.evals.sparse_probing import main as eval_module

    texts = serve_topics(task.settings, is_recorded=True)
    with texts, shims.use_model(eval_module, None), shims.quiet_probes():
        eval_module.run_eval(
            _configure(task.site, task.settings),
            [(task.name, task.sae)],
            task.device,
            str(task.output),
            artifacts_path=str(task.prepared),
        )


def _configure(site: EvalSite, settings: Mapping[str, Any]) -> Any:
    from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig

    return SparseProbingEvalConfig(
        random_seed=site.seed,
        dataset_names=list_hub_names("sparse_probing", settings) or [shims.AG_NEWS],
        probe_train_set_size=settings["train_size"],
        probe_test_set_size=settings["test_size"],
        context_length=settings["context_length"],
        llm_batch_size=32,
        llm_dtype="float32",
        model_name=site.model_name,
        k_values=list(settings["k_values"]),
    )
