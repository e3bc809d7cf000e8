"""Unfinished SAE trainings on disk: one safetensors file, replaced in one step.

Everything that a step reads and changes is in it, so that a training that goes on from here ends
with the same bytes as one that was never interrupted.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from dbksvd.base.checkpoint_files import CHECKPOINT_FILE, read_content, write_content
from dbksvd.fit.adam_moments import dump_moments, take_moments

_COUNTS = ("n_training_steps", "n_training_samples", "n_frac_active_samples")
_TALLIES = ("act_freq_scores", "n_forward_passes_since_fired")

_logger = logging.getLogger(__name__)


def save_checkpoint(
    folder: Path, trainer: SAETrainer[Any, Any], progress: dict[str, Any], identity: dict[str, Any]
) -> None:
    """Write a training atomically.

    Parameters
    ----------
    folder : Path
        Made if missing; the caller removes it after success.
    trainer : SAETrainer
        SAELens's trainer: weights, optimizer, schedulers and counters are taken from it.
    progress : dict
        What our loop keeps (log, seconds, …), JSON-able.
    identity : dict
        Settings and data, JSON-able; only a training of the same goes on from here.
    """
    tensors = {f"sae.{name}": tensor for name, tensor in trainer.sae.state_dict().items()}
    tensors |= dump_moments(trainer.optimizer)
    tensors |= {name: getattr(trainer, name) for name in _TALLIES}
    tensors |= _get_random_states(trainer)
    content = {
        "identity": identity,
        "progress": progress,
        "counts": {name: getattr(trainer, name) for name in _COUNTS},
        "scaling_factor": trainer.activation_scaler.scaling_factor,
        "lr": [group["lr"] for group in trainer.optimizer.param_groups],
        "lr_scheduler": trainer.lr_scheduler.state_dict(),
        "coefficients": {
            name: vars(scheduler) for name, scheduler in trainer.coefficient_schedulers.items()
        },
    }
    write_content(folder / CHECKPOINT_FILE, content, tensors)


def load_checkpoint(
    folder: Path, trainer: SAETrainer[Any, Any], identity: dict[str, Any]
) -> dict[str, Any] | None:
    """Put an unfinished training of the same settings and data into `trainer`.

    Returns
    -------
    dict or None
        Its progress; None, and `trainer` as it was, where there is no usable file. A file that is
        damaged or of something else is left alone, and the log says why.
    """
    path = folder / CHECKPOINT_FILE
    read = read_content(path, identity)
    if read is None:
        return None
    content, tensors = read
    _restore(trainer, tensors, content)
    _logger.info("%s: going on after %d samples", path, trainer.n_training_samples)
    return content["progress"]


def _restore(
    trainer: SAETrainer[Any, Any], tensors: dict[str, Tensor], content: dict[str, Any]
) -> None:
    prefix = "sae."
    weights = {
        name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)
    }
    trainer.sae.load_state_dict(weights)
    optimizer = take_moments(trainer.optimizer, tensors)
    for group, lr in zip(optimizer["param_groups"], content["lr"], strict=True):
        group["lr"] = lr
    trainer.optimizer.load_state_dict(optimizer)
    trainer.lr_scheduler.load_state_dict(content["lr_scheduler"])
    for name in _TALLIES:
        setattr(trainer, name, tensors[name].to(trainer.cfg.device))
    for name, count in content["counts"].items():
        setattr(trainer, name, count)
    trainer.activation_scaler.scaling_factor = content["scaling_factor"]
    for name, state in content["coefficients"].items():
        vars(trainer.coefficient_schedulers[name]).update(state)
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], trainer.cfg.device)


def _get_random_states(trainer: SAETrainer[Any, Any]) -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.device(trainer.cfg.device).type == "cuda":
        states["random.cuda"] = torch.cuda.get_rng_state(trainer.cfg.device)
    return states
