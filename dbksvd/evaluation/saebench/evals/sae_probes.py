"""sparse_probing_sae_probes: k-sparse probes on the data sets that sae-probes carries."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dbksvd.base.settings import Count, Settings
from dbksvd.evaluation.saebench.data.names import SCORING_SOURCES
from dbksvd.evaluation.saebench.data.settings import ContextLength, Names
from dbksvd.evaluation.saebench.entry import Eval, EvalTexts, make_probe_headlines

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel
    from dbksvd.models.sizes import ModelKind

ALL_ROWS = 4000  # of a data set, roughly


class SAEProbesSettings(Settings):
    """k-sparse probes on data sets with two classes that sae-probes carries."""

    datasets: Names = Field(list(SCORING_SOURCES))
    """Names of data sets that sae-probes carries, of two classes; by default a varied eight."""
    rows: Annotated[int, Field(ge=100)] | None = 1000
    """Texts of each data set, as many of either class; null reads all."""
    context_length: ContextLength = 64
    """Tokens of a text that are read."""
    ks: list[Count] = Field([1, 2, 5], min_length=1)
    """Numbers of latents that a probe sees; tables show 1 and 5."""
    reg_type: Literal["l1", "l2"] = "l1"
    """Penalty of the logistic regression."""
    resplits: Annotated[int, Field(ge=0)] = 0
    """Further splits of the texts; scores are then means over all splits, beside SAEBench's own."""


def cost(settings: SAEProbesSettings, _kind: ModelKind) -> EvalTexts:
    """Count the texts, of which one activation each is kept and coded."""
    rows = ALL_ROWS if settings.rows is None else settings.rows
    sets = len(settings.datasets)
    read = sets * rows * settings.context_length
    probes = 0.75 * sets * (1 + settings.resplits / 3)  # further splits code nothing anew
    return EvalTexts(read, sets * rows, sets * rows, sets * rows, 0, probes, 3.0 * sets)


def list_bundled(settings: SAEProbesSettings) -> list[str]:
    """Return the data sets of sae-probes that are read."""
    return list(settings.datasets)


def prepare(loaded: LoadedModel, site: EvalSite, settings: SAEProbesSettings, to: Path) -> None:
    """Write activations and raw-activation probes.

    Saves, for four sets, 64 s of 67 s per dictionary.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : SAEProbesSettings
        Which data sets, how many texts of each and how long.
    to : path
        An empty folder.

    Raises
    ------
    ValueError
        If a data set is not there or has more than two classes.
    """
    from sae_probes import DATASETS, generate_model_activations, run_baseline_evals

    from dbksvd.evaluation.saebench.data.bundled import read_bundled
    from dbksvd.evaluation.saebench.last_text_token import LastTextTokenModel
    from dbksvd.evaluation.saebench.shims import common

    datasets = list(settings.datasets)
    for name in datasets:
        read_bundled(name)
        if name not in DATASETS:
            raise ValueError(f"datasets: {name!r} has more than two classes, sae-probes needs two")
    with common.limit_rows(settings.rows), common.quiet_probes():
        generate_model_activations.ensure_dataset_activations(
            site.model_name,
            datasets,
            [site.hook],
            to,
            device=loaded.device.type,
            max_seq_len=settings.context_length,
            batch_size=256,  # the model below sorts by length inside a batch
            model=LastTextTokenModel(loaded, site.model_name, norm_limit=site.norm_limit),
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
    """SAEBench's sparse_probing_sae_probes over the prepared activations."""
    from sae_bench.evals.sparse_probing_sae_probes import main as eval_module
    from sae_bench.evals.sparse_probing_sae_probes.eval_config import (
        SparseProbingSaeProbesEvalConfig,
    )

    from dbksvd.base.files import write_json
    from dbksvd.evaluation.saebench.evals.resplits import probe_again
    from dbksvd.evaluation.saebench.results import RESPLITS
    from dbksvd.evaluation.saebench.shims import common
    from dbksvd.evaluation.saebench.shims.probes import quick_probes

    settings: SAEProbesSettings = task.settings
    # sae-probes opens a folder for writing beside the raw-activation scores: it gets copies.
    baseline = f"baseline_results_{task.site.model_name}"
    shutil.copytree(task.prepared / baseline, Path("results") / baseline)
    config = SparseProbingSaeProbesEvalConfig(
        model_name=task.site.model_name,
        random_seed=task.site.seed,
        dataset_names=list(settings.datasets),
        reg_type=settings.reg_type,
        ks=list(settings.ks),
        results_path="results",
        model_cache_path=str(task.prepared),
    )
    with common.limit_rows(settings.rows), common.quiet_probes(), quick_probes():
        eval_module.run_eval(config, [(task.name, task.sae)], task.device, str(task.output))
    if settings.resplits:
        write_json(task.output / RESPLITS, probe_again(task))


EVAL = Eval(
    settings=SAEProbesSettings,
    prepare=prepare,
    run=run,
    headlines=make_probe_headlines("sparse_probing_sae_probes", "probing"),
    cost=cost,
    datasets=list_bundled,
    needs_norm_limit=True,
    scores_places=True,
)
