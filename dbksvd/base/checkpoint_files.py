"""Unfinished work on disk: one safetensors file, tensors and JSON together.

A single file, replaced in one step, so that a kill at any instant leaves either the old state or
the new one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dbksvd.base.files import replace_file

CHECKPOINT_FILE = "checkpoint.safetensors"

_logger = logging.getLogger(__name__)


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoint in a folder, and the folder where nothing else is in it."""
    if not folder.is_dir():
        return
    stem, ending = CHECKPOINT_FILE.split(".")
    for path in (folder / CHECKPOINT_FILE, *folder.glob(f".{stem}-*.{ending}")):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # other files are in it
        folder.rmdir()


def write_content(path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint atomically, as :func:`read_content` reads it.

    Parameters
    ----------
    path : Path
        A safetensors file; its folder is made if missing.
    content : mapping
        JSON-able, with an entry ``identity``.
    tensors : mapping
        By name, on any device.
    """
    with replace_file(path) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata={"state": json.dumps(content, allow_nan=False)},
        )


def read_content(
    path: Path, identity: Mapping[str, Any], names: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return the JSON and the tensors of a checkpoint if it is there, whole and of `identity`.

    Parameters
    ----------
    path : Path
        A safetensors file whose metadata holds JSON under ``state``, with an entry ``identity``.
    identity : mapping
        Settings and data of the work, JSON-able; only work of the same goes on from here.
    names : sequence of str, optional
        The tensors that the file must have, and all that are read; None reads those it has.

    Returns
    -------
    tuple or None
        None if there is no such file or it is not used; the log then says why.

    Raises
    ------
    ValueError
        If there is a whole file that is no checkpoint: the next one would replace it.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if "state" not in (file.metadata() or {}):
                raise ValueError(f"{path}: expected a checkpoint, to be replaced, got another file")
            content = json.loads(file.metadata()["state"])
            # Copies: a tensor in the file begins where the text before it ends, and products of
            # tensors that are aligned otherwise are rounded otherwise.
            tensors = {name: file.get_tensor(name).clone() for name in names or file.keys()}
        found = content["identity"]
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        _logger.warning("%s: not used, it cannot be read (%s)", path, error)
        return None
    # through JSON and back, so that tuples and lists compare equal
    wanted = json.loads(json.dumps(dict(identity)))
    different = [
        name for name in sorted(wanted.keys() | found) if wanted.get(name) != found.get(name)
    ]
    if different:
        _logger.warning("%s: not used, it is of another %s", path, ", ".join(different))
        return None
    return content, tensors
