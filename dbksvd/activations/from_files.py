"""Ready activations in .npy, .h5 and .safetensors files, read in blocks and never as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from dbksvd.activations.hdf5 import create_file, record_dtype, write_rows
from dbksvd.activations.hdf5_sources import explain_damage, list_hdf5_files
from dbksvd.activations.settings import FileActivations, ReadySettings
from dbksvd.base.file_kinds import tell_kind
from dbksvd.base.files import hash_content, hash_file
from dbksvd.base.local_files import expand_user
from dbksvd.base.splits import SPLITS

BLOCK_BYTES = 2**26
_FLOATS = {"float16", "float32", "float64", "bfloat16", "F16", "F32", "F64", "BF16"}


@dataclass(frozen=True)
class Table:
    """A (rows, d) array on disk; ``read(start, stop)`` returns rows as float NumPy."""

    rows: int
    width: int
    read: Callable[[int, int], np.ndarray]


def extract_ready_slice(
    settings: FileActivations,
    ranges: Mapping[str, tuple[int, int]],
    output: Path,
    attributes: Mapping[str, Any],
) -> None:
    """Write one slice of ready activations as a part.

    Training rows are the first of the file, held-out rows the last. Nothing is known of documents:
    ``document`` and ``token`` are −1, ``position`` is the row of the file.

    Parameters
    ----------
    settings : FileActivations
        Which file, and how many rows of it over all slices.
    ranges : mapping of split to (start, stop)
        Rows of this slice inside the rows of the split.
    output : Path
        The part.
    attributes : mapping
        Attributes that say which slice this is.

    Raises
    ------
    ValueError
        If the array is not floating, two-dimensional and finite, or has too few rows.
    """
    ready, storage_dtype = settings.files, settings.storage_dtype
    path = expand_user(ready.path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    sha256 = hash_file(path)
    if ready.sha256 is not None and sha256 != ready.sha256:
        raise ValueError(f"{path}: expected sha256 {ready.sha256}, got {sha256}")
    with open_table(path, ready.tensor) as table:
        described = {"model": path.name, "model_kind": "files", "layer": -1}
        described["model_sha256"] = _combine(sha256, list_files(path, ready.tensor)[1:], ready)
        described |= {"dtype": storage_dtype, **attributes}
        needed = sum(settings.count(split) for split in SPLITS)
        if table.rows < needed:
            raise ValueError(f"{path}: expected at least {needed} rows, got {table.rows}")
        offsets = {"train": 0, "heldout": table.rows - settings.count("heldout")}
        sizes = {split: stop - start for split, (start, stop) in ranges.items()}
        with create_file(output, sizes, table.width, storage_dtype, described) as file:
            for split, (start, stop) in ranges.items():
                first = offsets[split] + start
                blocks = _iterate_records(table, first, offsets[split] + stop, path, storage_dtype)
                with tqdm(total=stop - start, unit=" rows", unit_scale=True, desc=split) as bar:
                    for row, records in blocks:
                        write_rows(file[split], row - first, records)
                        bar.update(len(records))


def list_files(path: Path, tensor: str) -> list[Path]:
    """Return the files that ready activations are read from: the file, and those behind it.

    Parameters
    ----------
    path : Path
        The file.
    tensor : str
        The dataset or tensor inside.

    Raises
    ------
    OSError, ValueError
        If the file is HDF5 and cannot be read, or what is behind it is not all there
        (:func:`dbksvd.activations.hdf5_sources.list_hdf5_files`).
    """
    return list_hdf5_files(path, tensor) if path.suffix in (".h5", ".hdf5") else [path]


def _combine(sha256: str, behind: list[Path], ready: ReadySettings) -> str:
    """Return the hash of a file and of those behind it."""
    if not behind:
        return sha256
    if ready.sha256 is not None:
        raise ValueError(
            f"files.sha256: expected a file that holds its data itself, {ready.path} takes some "
            f"from {behind[0]}"
        )
    return hash_content([sha256, *map(hash_file, behind)])


def _iterate_records(
    table: Table, start: int, stop: int, path: Path, dtype: str
) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, BLOCK_BYTES // (8 * table.width))
    for row in range(start, stop, step):
        try:
            block = table.read(row, min(row + step, stop))
        except (OSError, RuntimeError) as error:  # h5py names no file
            raise ValueError(f"{path}: expected readable rows from {row}, got: {error}") from error
        records = np.empty(len(block), record_dtype(table.width, dtype))
        with np.errstate(over="ignore"):  # found by the check below, with a better message
            records["activations"] = block
        finite = np.isfinite(records["activations"]).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{path}: expected finite {dtype} values, got NaN or infinity in row "
                f"{row + int(np.argmin(finite))}"
            )
        records["document"] = records["token"] = -1
        records["position"] = np.arange(row, row + len(block))
        yield row, records


@contextmanager
def open_table(path: Path, tensor: str) -> Iterator[Table]:
    """Open an array of activations in a file, whatever its kind.

    Parameters
    ----------
    path : Path
        A .npy, .h5, .hdf5 or .safetensors file.
    tensor : str
        The dataset or tensor inside; a .npy file has one.

    Yields
    ------
    Table
        Its shape, and a function that reads rows.

    Raises
    ------
    ValueError
        If the file is damaged, of another kind, or holds no floating array of shape (rows, d).
    """
    readers = {
        ".npy": _open_npy,
        ".h5": _open_hdf5,
        ".hdf5": _open_hdf5,
        ".safetensors": _open_safetensors,
    }
    if path.suffix not in readers:
        raise ValueError(
            f"{path}: expected a file of kind {', '.join(readers)}, got {tell_kind(path)}"
        )
    with readers[path.suffix](path, tensor) as table:
        yield table


def _check_array(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    if dtype not in _FLOATS:
        raise ValueError(f"{path}: expected a floating dtype, got {dtype}")
    if len(shape) != 2 or 0 in shape:
        hint = ""
        if len(shape) > 2 and 0 not in shape:
            hint = f"; reshape it to {(math.prod(shape[:-1]), shape[-1])} first"
        raise ValueError(f"{path}: expected an array of shape (rows, d), got {tuple(shape)}{hint}")


def _check_kind(path: Path, expected: str) -> None:
    found = tell_kind(path)
    if found not in (expected, "another kind of file"):  # a damaged start is told by its reader
        raise ValueError(f"{path}: expected {expected}, got {found}")


@contextmanager
def _open_npy(path: Path, _tensor: str) -> Iterator[Table]:
    _check_kind(path, "a .npy array")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    # what NumPy raises on damaged headers
    except (ValueError, EOFError, SyntaxError, TypeError, OverflowError, TokenError) as error:
        raise ValueError(f"{path}: expected a whole .npy array, got: {error}") from error
    _check_array(path, array.shape, str(array.dtype) if array.dtype.names else array.dtype.name)
    yield Table(array.shape[0], array.shape[1], lambda start, stop: np.array(array[start:stop]))


@contextmanager
def _open_hdf5(path: Path, tensor: str) -> Iterator[Table]:
    _check_kind(path, "an HDF5 file")
    list_hdf5_files(path, tensor)
    with h5py.File(path, "r", locking=False) as file:
        with explain_damage(path):
            array = file[tensor]
            shape, dtype = array.shape or (), array.dtype
        _check_array(path, shape, str(dtype) if dtype.names else dtype.name)
        yield Table(array.shape[0], array.shape[1], lambda start, stop: array[start:stop])


@contextmanager
def _open_safetensors(path: Path, tensor: str) -> Iterator[Table]:
    _check_kind(path, "a safetensors file")
    try:
        # Through torch, because NumPy has no bfloat16.
        file = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a whole safetensors file, got: {error}") from error
    with file:
        names = list(file.keys())
        if tensor not in names:
            raise ValueError(f"{path}: expected a tensor {tensor!r}, found {names}")
        array = file.get_slice(tensor)
        shape = tuple(array.get_shape())
        dtype = array.get_dtype()
        _check_array(path, shape, dtype)
        yield Table(shape[0], shape[1], lambda start, stop: _to_numpy(array[start:stop]))


def _to_numpy(block: Any) -> np.ndarray:
    return block.double().numpy()
