"""scr: removal of a spurious correlation, on labels that cross: bundled reviews or SAEBench's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbksvd.evaluation.saebench.data.labelled import serve_crossing
from dbksvd.evaluation.saebench.evals.probe_perturbation import (
    configure,
    prepare_perturbation,
    run_perturbation,
)
from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.registry import list_hub_names, reads_hub
from dbksvd.evaluation.saebench.shims import common as shims
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models.loading import LoadedModel


def prepare(loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path) -> None:
    """Activations and probes. Settings: see `probe_perturbation.configure`."""
    with serve_crossing(settings, is_recorded=False):
        prepare_perturbation(loaded, site, _configure(site, settings), to)


def run(task: EvalTask) -> None:
    """SAEBench's scr over the prepared activations."""
    with serve_crossing(task.settings, is_recorded=True):
        run_perturbation(task, _configure(task.site, task.settings))


def _configure(site: EvalSite, settings: Mapping[str, Any]) -> Any:
    if reads_hub(settings):  # SAEBench's config has the pairs of classes of its own data sets
        names = list_hub_names("scr", settings)
        return configure(site, settings, dataset_names=names, perform_scr=True)
    return configure(
        site,
        settings,
        dataset_names=[shims.CROSSED],
        perform_scr=True,
        column1_vals_lookup={shims.CROSSED: [shims.SENTIMENTS]},
    )
