"""tpp: targeted probe perturbation, on three topics of AG News or on SAEBench's own two sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbksvd.evaluation.saebench.data.labelled import serve_topics
from dbksvd.evaluation.saebench.evals.probe_perturbation import (
    configure,
    prepare_perturbation,
    run_perturbation,
)
from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.registry import list_hub_names
from dbksvd.evaluation.saebench.shims import common as shims
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models.loading import LoadedModel


def prepare(loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path) -> None:
    """Activations and probes. Settings: see `probe_perturbation.configure`."""
    with serve_topics(settings, is_recorded=False):
        prepare_perturbation(loaded, site, _configure(site, settings), to)


def run(task: EvalTask) -> None:
    """SAEBench's tpp over the prepared activations."""
    with serve_topics(task.settings, is_recorded=True):
        run_perturbation(task, _configure(task.site, task.settings))


def _configure(site: EvalSite, settings: Mapping[str, Any]) -> Any:
    names = list_hub_names("tpp", settings) or [shims.AG_NEWS]
    return configure(site, settings, dataset_names=names, perform_scr=False)
