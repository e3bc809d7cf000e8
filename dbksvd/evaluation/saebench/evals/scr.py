"""scr: removal of a spurious correlation, on labels that cross: bundled reviews or SAEBench's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbksvd.base.headline import Headline
from dbksvd.evaluation.saebench.data.names import BUNDLED, CROSSED_SOURCES
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


class SCRSettings(PerturbationSettings):
    """SAEBench's scr: removing latents should free a probe of a spurious correlation."""


def list_bundled(settings: SCRSettings) -> list[str]:
    """Return the data sets of sae-probes that are read."""
    return list(CROSSED_SOURCES) if settings.data == BUNDLED else []


def prepare(loaded: LoadedModel, site: EvalSite, settings: SCRSettings, to: Path) -> None:
    """Write activations and probes.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : SCRSettings
        Which texts, how many and how long; how long probes train.
    to : path
        An empty folder.
    """
    from dbksvd.evaluation.saebench.data.labelled import serve_crossing

    with serve_crossing(settings, is_prepared=False):
        prepare_perturbation(loaded, site, _configure(site, settings), to)


def run(task: EvalTask) -> None:
    """SAEBench's scr over the prepared activations."""
    from dbksvd.evaluation.saebench.data.labelled import serve_crossing

    with serve_crossing(task.settings, is_prepared=True):
        run_perturbation(task, _configure(task.site, task.settings))


def _configure(site: EvalSite, settings: SCRSettings) -> Any:
    from dbksvd.evaluation.saebench.shims import common

    if settings.data == BUNDLED:
        return configure(
            site,
            settings,
            dataset_names=[common.CROSSED],
            perform_scr=True,
            column1_vals_lookup={common.CROSSED: [common.SENTIMENTS]},
        )
    # SAEBench's config has the pairs of classes of its own data sets.
    return configure(site, settings, dataset_names=list_hub_data(settings), perform_scr=True)


EVAL = Eval(
    settings=SCRSettings,
    prepare=prepare,
    run=run,
    headlines=(Headline("SCR, 10 atoms", "scr", "scr_metric_threshold_10", warning=UNRELIABLE),),
    cost=cost,
    datasets=list_bundled,
    hub=list_hub_data,
    needs_norm_limit=True,
)
