"""Ready activations in .npy, .h5 and .safetensors files, read in blocks and never as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from dbksvd.activations.hdf5 import create_file, record_dtype, write_rows
from dbksvd.activations.settings import FileActivations
from dbksvd.base.files import hash_file
from dbksvd.base.splits import SPLITS

BLOCK_BYTES = 2**26
_FLOATS = {"float16", "float32", "float64", "bfloat16", "F16", "F32", "F64", "BF16"}


@dataclass(frozen=True)
class _Table:
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
    path = Path(ready.path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    sha256 = hash_file(path)
    if ready.sha256 is not None and sha256 != ready.sha256:
        raise ValueError(f"{path}: expected sha256 {ready.sha256}, got {sha256}")
    described = {"model": path.name, "model_kind": "files", "model_sha256": sha256, "layer": -1}
    described |= {"dtype": storage_dtype, **attributes}
    with _open_table(path, ready.tensor) as table:
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


def _iterate_records(
    table: _Table, start: int, stop: int, path: Path, dtype: str
) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, BLOCK_BYTES // (8 * table.width))
    for row in range(start, stop, step):
        block = table.read(row, min(row + step, stop))
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
def _open_table(path: Path, tensor: str) -> Iterator[_Table]:
    readers = {
        ".npy": _open_npy,
        ".h5": _open_hdf5,
        ".hdf5": _open_hdf5,
        ".safetensors": _open_safetensors,
    }
    if path.suffix not in readers:
        raise ValueError(f"{path}: expected a file of kind {', '.join(readers)}")
    with readers[path.suffix](path, tensor) as table:
        yield table


def _check_array(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    if dtype not in _FLOATS:
        raise ValueError(f"{path}: expected a floating dtype, got {dtype}")
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{path}: expected an array of shape (rows, d), got {tuple(shape)}")


@contextmanager
def _open_npy(path: Path, _tensor: str) -> Iterator[_Table]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected a whole .npy array, got: {error}") from error
    _check_array(path, array.shape, array.dtype.name)
    yield _Table(array.shape[0], array.shape[1], lambda start, stop: np.array(array[start:stop]))


@contextmanager
def _open_hdf5(path: Path, tensor: str) -> Iterator[_Table]:
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise ValueError(f"{path}: expected a whole HDF5 file, got: {error}") from error
    with file:
        array = file.get(tensor)
        if not isinstance(array, h5py.Dataset):
            raise ValueError(f"{path}: expected a dataset {tensor!r}, found {sorted(file)}")
        _check_array(path, array.shape, array.dtype.name)
        yield _Table(array.shape[0], array.shape[1], lambda start, stop: array[start:stop])


@contextmanager
def _open_safetensors(path: Path, tensor: str) -> Iterator[_Table]:
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
        yield _Table(shape[0], shape[1], lambda start, stop: _to_numpy(array[start:stop]))


def _to_numpy(block: Any) -> np.ndarray:
    return block.double().numpy()
