"""Unfinished fits on disk: one safetensors file, replaced in one step.

A single file, tensors and JSON together, so that a kill at any instant leaves either the old
state or the new one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dbksvd.files import replace_file

CHECKPOINT_FILE = "checkpoint.safetensors"

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
    with replace_file(folder / CHECKPOINT_FILE) as temporary:
        metadata = {"state": json.dumps(content, allow_nan=False)}
        save_file({"atoms": state.atoms.cpu().contiguous()}, temporary, metadata=metadata)


def load_state(
    folder: Path, identity: dict[str, Any], device: torch.device | str
) -> FitState | None:
    """Return the state of an unfinished fit of the same settings and data, else None.

    A file that is damaged or of something else is left alone, and the log says why.
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


def read_content(
    path: Path, identity: dict[str, Any], names: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return the JSON and the tensors of a checkpoint if it is there, whole and of `identity`.

    `names` are the tensors it must have, and all that are read; None reads those it has. Else None;
    the log says why a file that is there is not used.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in names or file.keys()}
        found = content["identity"]
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        _logger.warning("%s: not used, it cannot be read (%s)", path, error)
        return None
    # through JSON and back, so that tuples and lists compare equal
    wanted = json.loads(json.dumps(identity))
    different = [
        name for name in sorted(wanted.keys() | found) if wanted.get(name) != found.get(name)
    ]
    if different:
        _logger.warning("%s: not used, it is of another %s", path, ", ".join(different))
        return None
    return content, tensors
