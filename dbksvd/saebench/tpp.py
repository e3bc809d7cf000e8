"""tpp: targeted probe perturbation, on the three topics of AG News."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbksvd.saebench import shims
from dbksvd.saebench.bundled import read_ag_news
from dbksvd.saebench.model import EvalSite
from dbksvd.saebench.probe_perturbation import configure, prepare_perturbation, run_perturbation
from dbksvd.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models import LoadedModel


def prepare(loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path) -> None:
    """Activations and probes. Settings: see `probe_perturbation.configure`."""
    with shims.serve_ag_news(read_ag_news()):
        prepare_perturbation(loaded, site, _configure(site, settings), to)


def run(task: EvalTask) -> None:
    """SAEBench's tpp over the prepared activations."""
    with shims.serve_ag_news(None):
        run_perturbation(task, _configure(task.site, task.settings))


def _configure(site: EvalSite, settings: Mapping[str, Any]) -> Any:
    return configure(site, settings, dataset_names=[shims.AG_NEWS], perform_scr=False)
