"""Unfinished fits on disk: one safetensors file, replaced in one step.

Tensors and JSON are in one file, so that a kill at any instant leaves the old state or the new
one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dbksvd.base.checkpoint_files import CHECKPOINT_FILE, read_content, write_content
from dbksvd.ops.ranks import Ranks

__all__ = ["CHECKPOINT_FILE", "FitState", "check_same", "load_state", "read_content", "save_state"]

_logger = logging.getLogger(__name__)


@dataclass
class FitState:
    """All that changes in a fit.

    Parameters
    ----------
    atoms : tensor of shape (m, d)
        Atoms so far, of unit norm.
    iteration : int
        Iterations done.
    seconds : float
        Fit time so far, in seconds, without measurements on held-out samples.
    log : list of dict
        One row per iteration done.
    stop_reason : str
        Why the fit ended; empty while it has not.
    """

    atoms: Tensor
    iteration: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)
    stop_reason: str = ""


def save_state(folder: Path, state: FitState, identity: dict[str, Any]) -> None:
    """Write a state atomically.

    Parameters
    ----------
    folder : Path
        Made if missing; the caller removes it after success.
    state : FitState
        What to write.
    identity : dict
        Settings and data of the fit, JSON-able; only a fit of the same goes on from here.
    """
    content = {
        "identity": identity,
        "iteration": state.iteration,
        "seconds": state.seconds,
        "log": state.log,
        "stop_reason": state.stop_reason,
    }
    write_content(folder / CHECKPOINT_FILE, content, {"atoms": state.atoms})


def load_state(
    folder: Path, identity: dict[str, Any], device: torch.device | str
) -> FitState | None:
    """Return the state of an unfinished fit of the same settings and data, else None.

    A file that is damaged, or that belongs to another fit, stays as it is, and the log says why.
    """
    path = folder / CHECKPOINT_FILE
    read = read_content(path, identity, names=("atoms",))
    if read is None:
        return None
    content, tensors = read
    _logger.info("%s: going on after iteration %d", path, content["iteration"])
    return FitState(
        tensors["atoms"].to(device),
        *(content["iteration"], content["seconds"], content["log"], content["stop_reason"]),
    )


def check_same(done: int, folder: Path, ranks: Ranks) -> None:
    """Check that all ranks go on from the same place.

    Parameters
    ----------
    done : int
        Iterations that this rank found done, 0 without a checkpoint.
    folder : Path
        Where it looked.
    ranks : Ranks
        The processes that must agree; only the first one writes there.

    Raises
    ------
    ValueError
        If ranks found different states, because the machines do not share the folder.
    """
    expected = int(ranks.ask_first(done))
    if ranks.sum_numbers(float(done != expected)) != [0.0]:
        raise ValueError(
            f"{folder}: expected a folder that all ranks see, got {done} done for rank "
            f"{ranks.rank} and {expected} for rank 0"
        )
