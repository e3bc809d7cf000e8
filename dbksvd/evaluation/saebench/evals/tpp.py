"""tpp: targeted probe perturbation, on three topics of AG News or on SAEBench's own two sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbksvd.base.headline import Headline
from dbksvd.evaluation.saebench.data.names import AG_NEWS_SOURCES, BUNDLED
from dbksvd.evaluation.saebench.data.settings import list_hub_data
from dbksvd.evaluation.saebench.entry import Eval
from dbksvd.evaluation.saebench.evals.probe_perturbation import (
    UNRELIABLE,
    PerturbationSettings,
    configure,
    cost,
    prepare_perturbation,
    run_perturbation,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel


class TPPSettings(PerturbationSettings):
    """SAEBench's tpp: removing the latents of one class should disturb the probe of that class."""


def list_bundled(settings: TPPSettings) -> list[str]:
    """Return the data sets of sae-probes that are read."""
    return list(AG_NEWS_SOURCES) if settings.data == BUNDLED else []


def prepare(loaded: LoadedModel, site: EvalSite, settings: TPPSettings, to: Path) -> None:
    """Write activations and probes.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : TPPSettings
        Which texts, how many and how long; how long probes train.
    to : path
        An empty folder.
    """
    from dbksvd.evaluation.saebench.data.labelled import serve_topics

    with serve_topics(settings, is_prepared=False):
        prepare_perturbation(loaded, site, _configure(site, settings), to)


def run(task: EvalTask) -> None:
    """SAEBench's tpp over the prepared activations."""
    from dbksvd.evaluation.saebench.data.labelled import serve_topics

    with serve_topics(task.settings, is_prepared=True):
        run_perturbation(task, _configure(task.site, task.settings))


def _configure(site: EvalSite, settings: TPPSettings) -> Any:
    from dbksvd.evaluation.saebench.shims import common

    names = [common.AG_NEWS] if settings.data == BUNDLED else list_hub_data(settings)
    return configure(site, settings, dataset_names=names, perform_scr=False)


EVAL = Eval(
    settings=TPPSettings,
    prepare=prepare,
    run=run,
    headlines=(
        Headline("TPP, 10 atoms", "tpp", "tpp_threshold_10_total_metric", warning=UNRELIABLE),
    ),
    cost=cost,
    datasets=list_bundled,
    hub=list_hub_data,
    needs_norm_limit=True,
)
