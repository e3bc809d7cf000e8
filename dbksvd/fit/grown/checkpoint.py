"""Unfinished growths on disk.

All that a round reads and changes is in the file, so that a growth that goes on from there ends
with the same bytes as one that was never interrupted.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from dbksvd.activations.source import fingerprint_source
from dbksvd.base.checkpoint_files import CHECKPOINT_FILE, read_content, write_content
from dbksvd.fit.grown.settings import GrownSettings
from dbksvd.fit.grown.state import GrowthState
from dbksvd.fit.task import FitTask

_logger = logging.getLogger(__name__)

# Version of the content of a file: since 2 the log has thresholds.
VERSION = 2


def identify_growth(task: FitTask, settings: GrownSettings) -> dict[str, Any]:
    """Return what a checkpoint must agree on to be used."""
    return {
        "version": VERSION,
        "data": fingerprint_source(task.train),
        "settings": settings.model_dump(exclude={"algorithm", "device", "checkpoint_seconds"}),
        "sizes": [task.n_atoms, task.k],
        "seed": task.seed,
        "device": task.device.type,
    }


def save_growth(state: GrowthState, folder: Path, identity: dict[str, Any]) -> None:
    """Write a growth atomically to a folder, which the caller removes after success."""
    progress = {
        "position": state.position,
        "seen": state.seen,
        "log": state.log,
        "seconds": state.seconds,
    }
    write_content(
        folder / CHECKPOINT_FILE,
        {"identity": identity, "progress": progress},
        {"atoms": state.atoms, "bias": state.bias},
    )


def restore_growth_(state: GrowthState, folder: Path, identity: dict[str, Any]) -> None:
    """Go on from a growth of the same settings and data, if there is one in the folder.

    A file that is damaged or of something else is left alone, and the log says why.
    """
    path = folder / CHECKPOINT_FILE
    read = read_content(path, identity, names=("atoms", "bias"))
    if read is None:
        return
    content, tensors = read
    _logger.info("%s: going on with %d atoms", path, len(tensors["atoms"]))
    progress = content["progress"]
    state.atoms = tensors["atoms"].to(state.atoms.device)
    state.bias = tensors["bias"].to(state.bias.device)
    state.position, state.seen = progress["position"], progress["seen"]
    state.log = progress["log"]
    state.started -= progress["seconds"]
