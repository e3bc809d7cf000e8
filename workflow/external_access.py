"""What an experiment needs that is not on this machine: a model, data sets, a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbksvd.base.local_files import expand_user
from dbksvd.evaluation.saebench.checks import list_hub_reads, list_keys
from dbksvd.text.sources.registry import find_text_source

if TYPE_CHECKING:
    from workflow.config import ExperimentConfig


def list_external(config: ExperimentConfig) -> dict[str, Any]:
    """Return what :func:`dbksvd.models.access.check_access` is to ask for; empty where nothing.

    ``evals`` stand beside a model whose kind only its files on the hub tell.
    """
    model, evals = config.model, config.evaluation.list_evals()
    wanted: dict[str, Any] = {"data_sets": list_hub_reads(evals), "keys": list_keys(evals)}
    if model is not None and model.name and not expand_user(model.name).is_dir():
        wanted["model"] = model.dump()
        wanted["layers"] = getattr(config.activations, "layers", [])
        wanted["evals"] = {name: settings.dump() for name, settings in evals.items()}
    for position, source in enumerate(config.text.sources if config.text else ()):
        read = find_text_source(source.kind).hub_reads(source)
        if read is not None:
            wanted["data_sets"].append({**read, "key": f"text.sources[{position}].name"})
    return wanted
