"""Files that a config names, looked at before anything runs: found, whole, of the right shape.

Only headers are read. Needs nothing but the standard library and NumPy.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from dbksvd.base.files import is_lfs_pointer

# What stands at the end of a file's name, but never of a model's on the hub.
_FILE_ENDINGS = (".json", ".safetensors", ".bin", ".pt", ".pth", ".h5")
LARGEST_HEADER = 100_000_000  # bytes; the limit of safetensors itself


@dataclass(frozen=True)
class ArrayHeader:
    """Shape and dtype of an array in a file; dtype as NumPy or safetensors calls it."""

    shape: tuple[int, ...]
    dtype: str


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` expanded; one of an unknown user stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises RuntimeError


def tell_path(path: str | os.PathLike[str]) -> str:
    """Return a path for messages: absolute, and where a relative one begins."""
    found = expand_user(path)
    if found.is_absolute():
        return str(found)
    return f"{found.absolute()} (relative paths begin at the working directory)"


def is_path(name: str) -> bool:
    """Return whether a name can only be a path of this machine: the hub has no such name."""
    return (
        name.startswith(("/", "~", "."))
        or "\\" in name
        or name.count("/") > 1
        or name.endswith(("/", *_FILE_ENDINGS))
    )


def require_file(path: str | os.PathLike[str], where: str, expected: str) -> Path:
    """Return the path of a file that can be read and is no pointer of git-lfs.

    Raises
    ------
    ValueError
        If it is not there, is a folder, cannot be read, or only stands for a file.
    """
    found = expand_user(path)
    if found.is_dir():
        raise ValueError(f"{where}: expected {expected}, got the folder {tell_path(path)}")
    if not found.exists():
        raise ValueError(f"{where}: expected {expected}, found nothing at {tell_path(path)}")
    if not found.is_file():  # reading a pipe would wait for whoever writes to it
        raise ValueError(
            f"{where}: expected {expected}, got a pipe or a device at {tell_path(path)}"
        )
    try:
        is_pointer = is_lfs_pointer(found)
    except OSError as error:
        raise ValueError(f"{where}: {tell_path(path)}: {error.strerror}") from error
    if is_pointer:
        raise ValueError(
            f"{where}: expected {expected}, got a pointer of git-lfs at {tell_path(path)}: fetch "
            "the file itself with `git lfs pull`"
        )
    if not found.stat().st_size:
        raise ValueError(f"{where}: expected {expected}, got an empty file at {tell_path(path)}")
    return found


def require_folder(path: str | os.PathLike[str], where: str, expected: str) -> Path:
    """Return the path of a folder.

    Raises
    ------
    ValueError
        If there is none, or it cannot be read.
    """
    found = expand_user(path)
    if found.is_dir() and os.access(found, os.R_OK | os.X_OK):
        return found
    got = "found nothing" if not found.exists() else "got one that cannot be read"
    got = "got a file" if found.is_file() else got
    raise ValueError(f"{where}: expected {expected}, {got} at {tell_path(path)}")


def read_tensor_headers(path: Path) -> dict[str, ArrayHeader]:
    """Return the tensors of a safetensors file by name.

    Raises
    ------
    ValueError
        If the file is none, or shorter than its header says; the message names it.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(LARGEST_HEADER, size - 8):
                raise ValueError(f"a header of {length} bytes")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        found = {
            name: ArrayHeader(tuple(entry["shape"]), entry["dtype"])
            for name, entry in header.items()
        }
    except (ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a whole safetensors file, got: {error}") from error
    if size != 8 + length + end:
        raise ValueError(
            f"{path}: expected a whole safetensors file of {8 + length + end} bytes, got {size}"
        )
    return found


def read_npy_header(path: Path) -> ArrayHeader:
    """Return shape and dtype of a .npy file.

    Raises
    ------
    ValueError
        If the file is none, or shorter than its header says; the message names it.
    """
    from numpy.lib import format as npy

    try:
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":
                raise ValueError("an archive, as .npz files are")
            stream.seek(0)
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(stream)
            start = stream.tell()
    except (ValueError, EOFError, SyntaxError) as error:
        raise ValueError(f"{path}: expected a whole .npy array, got: {error}") from error
    needed, size = start + prod(shape) * dtype.itemsize, path.stat().st_size
    if not dtype.hasobject and size < needed:
        raise ValueError(f"{path}: expected a whole .npy array of {needed} bytes, got {size}")
    return ArrayHeader(tuple(shape), dtype.name)
