"""Unfinished growths on disk.

All that a round reads and changes is in the file, so that a growth that goes on from there ends
with the same bytes as one that was never interrupted.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dbksvd.activations.source import fingerprint_source
from dbksvd.base.checkpoint_files import CHECKPOINT_FILE, read_content, write_content

if TYPE_CHECKING:
    from dbksvd.fit.grown.growth import Growth

_logger = logging.getLogger(__name__)

# Of what a file holds: since 2 the log has thresholds.
VERSION = 2


def identify_growth(growth: Growth) -> dict[str, Any]:
    """Return what a checkpoint must agree on to be used."""
    task = growth.task
    settings = asdict(growth.settings)
    del settings["checkpoint_seconds"]
    return {
        "version": VERSION,
        "data": fingerprint_source(task.train),
        "settings": settings,
        "sizes": [task.n_atoms, task.k],
        "seed": task.seed,
        "device": task.device.type,
    }


def save_growth(growth: Growth, identity: dict[str, Any]) -> None:
    """Write a growth atomically to its task's folder, which the caller removes after success."""
    progress = {
        "position": growth.position,
        "seen": growth.seen,
        "log": growth.log,
        "seconds": time.perf_counter() - growth.started,
    }
    write_content(
        growth.task.checkpoint / CHECKPOINT_FILE,
        {"identity": identity, "progress": progress},
        {"atoms": growth.atoms, "bias": growth.bias},
    )


def restore_growth_(growth: Growth, identity: dict[str, Any]) -> None:
    """Go on from a growth of the same settings and data, if there is one.

    A file that is damaged or of something else is left alone, and the log says why.
    """
    path = growth.task.checkpoint / CHECKPOINT_FILE
    read = read_content(path, identity, names=("atoms", "bias"))
    if read is None:
        return
    content, tensors = read
    _logger.info("%s: going on with %d atoms", path, len(tensors["atoms"]))
    progress = content["progress"]
    growth.atoms = tensors["atoms"].to(growth.task.device)
    growth.bias = tensors["bias"].to(growth.task.device)
    growth.position, growth.seen = progress["position"], progress["seen"]
    growth.log = progress["log"]
    growth.started -= progress["seconds"]
