"""Unfinished training of a language model on disk: one safetensors file, replaced in one step."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dbksvd.files import replace_file

CHECKPOINT_FILE = "checkpoint.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")

logger = logging.getLogger(__name__)


def save_training(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.AdamW,
    identity: Mapping[str, Any],
    step: int,
    log: list[dict[str, float]],
) -> None:
    """Write weights and moments atomically.

    Parameters
    ----------
    folder : Path
        Made if missing; the caller removes it after success.
    model, optimizer
        After `step` steps.
    identity : mapping
        Settings and data, JSON-able; only a training of the same goes on from here.
    step : int
        Steps done.
    log : list of dict
        Measurements so far.
    """
    tensors = {}
    for name, weight in model.named_parameters():
        tensors[name] = weight.detach().cpu().contiguous()
        for moment in _MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[weight][moment].cpu().contiguous()
    content = {"identity": dict(identity), "step": step, "log": log}
    with replace_file(folder / CHECKPOINT_FILE) as temporary:
        save_file(tensors, temporary, metadata={"state": json.dumps(content, allow_nan=False)})


def load_training(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.AdamW,
    identity: Mapping[str, Any],
) -> tuple[int, list[dict[str, float]]]:
    """Fill model and optimizer from a checkpoint of the same training; return steps done and log.

    Without one, nothing changes and 0 steps are done. A file that is damaged or of another
    training is left alone, and the log says so.
    """
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return 0, []
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        logger.warning("%s: not used, it cannot be read (%s)", path, error)
        return 0, []
    if content["identity"] != json.loads(json.dumps(dict(identity))):
        logger.warning("%s: not used, it is of other settings or text", path)
        return 0, []
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors[name])
            state = optimizer.state[weight]
            state["step"] = torch.tensor(float(content["step"]))
            for moment in _MOMENTS:
                state[moment] = tensors[f"{moment}/{name}"].to(weight.device)
    logger.info("%s: going on after step %d", path, content["step"])
    return content["step"], content["log"]
