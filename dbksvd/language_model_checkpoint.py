"""Unfinished training of a language model on disk: one safetensors file, replaced in one step."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dbksvd.base.checkpoint_files import CHECKPOINT_FILE, read_content
from dbksvd.base.files import replace_file

_MOMENTS = ("exp_avg", "exp_avg_sq")

logger = logging.getLogger(__name__)


@dataclass
class TrainingProgress:
    """How far a training is.

    Parameters
    ----------
    step : int
        Steps done.
    seconds : float
        Seconds they took, measurements on held-out rows included.
    log : list of dict
        Measurements so far.
    """

    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, float]] = field(default_factory=list)


def save_training(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.AdamW,
    identity: Mapping[str, Any],
    progress: TrainingProgress,
) -> None:
    """Write weights and moments atomically.

    Parameters
    ----------
    folder : Path
        Made if missing; the caller removes it after success.
    model, optimizer
        After `progress.step` steps.
    identity : mapping
        Settings and data, JSON-able; only a training of the same goes on from here.
    progress : TrainingProgress
        Steps done, seconds and log.
    """
    tensors = {}
    for name, weight in model.named_parameters():
        tensors[name] = weight.detach().cpu().contiguous()
        for moment in _MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[weight][moment].cpu().contiguous()
    content = {"identity": dict(identity), "progress": asdict(progress)}
    with replace_file(folder / CHECKPOINT_FILE) as temporary:
        save_file(tensors, temporary, metadata={"state": json.dumps(content, allow_nan=False)})


def load_training(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.AdamW,
    identity: Mapping[str, Any],
) -> TrainingProgress:
    """Fill model and optimizer from a checkpoint of the same training; return its progress.

    Without one, nothing changes and 0 steps are done. A file that is damaged or of another
    training is left alone, and the log says so.
    """
    path = folder / CHECKPOINT_FILE
    read = read_content(path, identity)
    if read is None:
        return TrainingProgress()
    content, tensors = read
    progress = TrainingProgress(**content["progress"])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors[name])
            state = optimizer.state[weight]
            # where AdamW keeps it when its steps are fused
            state["step"] = torch.tensor(float(progress.step), device=weight.device)
            for moment in _MOMENTS:
                state[moment] = tensors[f"{moment}/{name}"].to(weight.device)
    logger.info("%s: going on after step %d", path, progress.step)
    return progress
