"""Unfinished growths on disk: one safetensors file, replaced in one step.

All that a round reads and changes is in it, so that a growth that goes on from here ends with the
same bytes as one that was never interrupted.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from dbksvd.checkpoint_files import CHECKPOINT_FILE, read_content
from dbksvd.files import replace_file

_logger = logging.getLogger(__name__)


def save_growth(
    folder: Path, tensors: dict[str, Tensor], progress: dict[str, Any], identity: dict[str, Any]
) -> None:
    """Write a growth atomically.

    Parameters
    ----------
    folder : Path
        Made if missing; the caller removes it after success.
    tensors : dict of tensors
        ``atoms`` (m, d) so far and ``bias`` (d,).
    progress : dict
        Place in the data, log and seconds, JSON-able.
    identity : dict
        Settings and data of the fit, JSON-able; only a fit of the same goes on from here.
    """
    content = {"identity": identity, "progress": progress}
    with replace_file(folder / CHECKPOINT_FILE) as temporary:
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata={"state": json.dumps(content, allow_nan=False)},
        )


def load_growth(
    folder: Path, identity: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return tensors and progress of an unfinished growth of the same settings and data, else None.

    A file that is damaged or of something else is left alone, and the log says why.
    """
    path = folder / CHECKPOINT_FILE
    read = read_content(path, identity, names=("atoms", "bias"))
    if read is None:
        return None
    content, tensors = read
    _logger.info("%s: going on with %d atoms", path, len(tensors["atoms"]))
    return tensors, content["progress"]
