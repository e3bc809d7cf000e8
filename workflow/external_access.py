"""What an experiment needs that is not on this machine: a model, data sets, a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbksvd.evaluation.saebench.registry import list_hub_reads

_ARGUMENTS = ("name", "config", "revision", "streaming")


def list_outside(config: dict[str, Any]) -> dict[str, Any]:
    """Return what :func:`dbksvd.models.access.check_access` is to ask for; empty where nothing.

    ``evals`` stand beside a model whose kind only its files on the hub tell.
    """
    model, evals = config.get("model") or {}, config["evaluation"]["evals"]
    wanted: dict[str, Any] = {"data_sets": list_hub_reads(evals)}
    if "name" in model and not Path(model["name"]).expanduser().is_dir():
        wanted["model"] = model
        wanted["layers"] = config["activations"].get("layers", [])
        wanted["evals"] = {key: evals[key] for key in evals if key != "ground_truth"}
    for position, source in enumerate(config.get("text", {}).get("sources", ())):
        if source["kind"] == "hub":
            own = {name: source[name] for name in _ARGUMENTS if name in source}
            own = {"streaming": False, **own, "key": f"text.sources[{position}].name"}
            wanted["data_sets"].append(own)
    if "autointerp" in evals:
        wanted["judge"] = evals["autointerp"]["judge"]
    return wanted
