"""The HDF5 layout that parts and shards share: rows of activations with where they come from.

Four datasets side by side, one row a token: ``activations`` (rows, d) float32 or float16,
``document``, ``position`` and ``token`` (rows,) int32. Attributes on the file say the rest.
A part has two groups of these, ``train`` and ``heldout``; a shard has one at its root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from dbksvd.activations.row_kernels import copy_rows
from dbksvd.base.files import check_hash, read_seal, replace_file

SCHEMA_VERSION = 1
LABELS = ("document", "position", "token")
CHUNK_BYTES = 2**20
# What one slice has of its own; all other attributes must be the same in all parts.
_OWN_ATTRIBUTES = ("slice", "train_range", "heldout_range")


def record_dtype(width: int, dtype: str) -> np.dtype[Any]:
    """Return the NumPy record of one row: its activations and its three labels."""
    return np.dtype([("activations", dtype, (width,)), *((name, np.int32) for name in LABELS)])


@contextmanager
def create_file(
    path: Path, tables: Mapping[str, int], width: int, dtype: str, attributes: Mapping[str, Any]
) -> Iterator[h5py.File]:
    """Create an HDF5 file with tables of known size, to be filled inside the block.

    The attribute ``complete`` turns true, and the file takes its name, when the block ends well.

    Parameters
    ----------
    path : Path
        Where the finished file goes.
    tables : mapping of str to int
        Group name (``"/"`` for the root) and its rows.
    width, dtype
        Of the activations.
    attributes : mapping
        Attributes of the file; None is written as an empty string.

    Raises
    ------
    OSError
        If the disk has no room for the whole file: found out before anything is written.
    """
    with replace_file(path) as temporary:
        size = sum(tables.values()) * record_dtype(width, dtype).itemsize
        with temporary.open("wb") as stream:
            _reserve(stream.fileno(), size + CHUNK_BYTES)
        with h5py.File(temporary, "w") as file:
            for name, rows in tables.items():
                _create_table(file.require_group(name), rows, width, dtype)
            for key, value in attributes.items():
                file.attrs[key] = "" if value is None else value
            file.attrs["schema_version"] = SCHEMA_VERSION
            file.attrs["complete"] = False
            file.flush()
            with temporary.open("r+b") as stream:
                _reserve(stream.fileno(), temporary.stat().st_size)
            yield file
            file.attrs["complete"] = True


def _reserve(handle: int, size: int) -> None:
    # HDF5 crashes the process at exit if a write has failed, so its writes must not fail.
    os.posix_fallocate(handle, 0, max(size, 1))


def _create_table(group: h5py.Group, rows: int, width: int, dtype: str) -> None:
    shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    shapes = {"activations": ((rows, width), np.dtype(dtype))}
    shapes |= {name: ((rows,), np.dtype(np.int32)) for name in LABELS}
    for name, (shape, kind) in shapes.items():
        row_bytes = kind.itemsize * (width if len(shape) == 2 else 1)
        chunk = (max(1, min(rows, CHUNK_BYTES // row_bytes)), *shape[1:])
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk(chunk)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        layout.set_obj_track_times(False)  # same rows, same bytes
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(kind), space, layout)


def write_rows(group: h5py.Group, start: int, rows: np.ndarray) -> None:
    """Write records (see :func:`record_dtype`) into a table from row `start` on."""
    for name in ("activations", *LABELS):
        group[name][start : start + len(rows)] = rows[name]


def write_records(group: h5py.Group, records: np.ndarray, order: np.ndarray) -> None:
    """Fill a table with records (see :func:`record_dtype`), of which `order` says which comes when.

    Only one chunk is held beside the records.
    """
    width = group["activations"].shape[1]
    kind = group["activations"].dtype
    whole = records.view(np.uint8).reshape(len(records), records.itemsize)
    activations, labels = np.split(whole, [width * kind.itemsize], axis=1)
    step = group["activations"].chunks[0]
    piece = np.empty((step, activations.shape[1]), np.uint8)
    for start in range(0, len(order), step):
        chosen = order[start : start + step]
        copy_rows(activations, chosen, piece, 0, 0)
        rows = piece[: len(chosen)].view(kind)
        group["activations"].write_direct(rows, dest_sel=np.s_[start : start + len(chosen)])
    own = np.empty((len(order), labels.shape[1]), np.uint8)
    copy_rows(labels, order, own, 0, 0)
    for name, column in zip(LABELS, own.view(np.int32).T, strict=True):
        group[name][:] = column


def read_rows(group: h5py.Group, start: int, stop: int) -> np.ndarray:
    """Read rows `start` to `stop` of a table as records."""
    activations = group["activations"]
    rows = np.empty(stop - start, record_dtype(activations.shape[1], activations.dtype.name))
    for name in ("activations", *LABELS):
        rows[name] = group[name][start:stop]
    return rows


@contextmanager
def open_file(path: str | Path) -> Iterator[h5py.File]:
    """Open a finished part or shard for reading.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is truncated, not complete or of another version; the message names it.
    """
    file = open_checked(path)
    try:
        yield file
    finally:
        file.close()


def open_checked(path: str | Path) -> h5py.File:
    """As :func:`open_file`, for a caller that closes the file itself."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        # Nothing writes to a finished file, and some cluster file systems refuse locks.
        file = h5py.File(path, "r", locking=False, rdcc_nbytes=16 * CHUNK_BYTES)
    except OSError as error:
        raise ValueError(f"{path}: expected a whole HDF5 file, got: {error}") from error
    version, complete = file.attrs.get("schema_version"), file.attrs.get("complete", False)
    if version != SCHEMA_VERSION or not complete:
        file.close()
        raise ValueError(
            f"{path}: expected a complete file with schema_version {SCHEMA_VERSION}, "
            f"got schema_version {version} and complete {bool(complete)}"
        )
    return file


def check_parts(parts: Sequence[str | Path]) -> tuple[list[Path], dict[str, Any], int]:
    """Check that `parts` are all the parts of one extraction.

    Returns
    -------
    paths : list of Path
        In the order of their slices.
    shared : dict
        The attributes they have in common.
    width : int
        d.

    Raises
    ------
    FileNotFoundError, ValueError
        If a part is missing, truncated, not what its seal says, or of another extraction.
    """
    if not parts:
        raise ValueError("parts: expected at least 1 file, got none")
    found: dict[int, Path] = {}
    reference: tuple[Path, dict[str, Any]] | None = None
    for path in map(Path, parts):
        _check_seal(path)
        with open_file(path) as file:
            own = {key: _to_plain(file.attrs.get(key)) for key in _OWN_ATTRIBUTES}
            described = {
                key: _to_plain(value)
                for key, value in file.attrs.items()
                if key not in (*_OWN_ATTRIBUTES, "complete", "schema_version")
            }
            described["width"] = int(file["train/activations"].shape[1])
        reference = reference or (path, described)
        for key in sorted(reference[1].keys() | described.keys()):
            expected, got = reference[1].get(key), described.get(key)
            if expected != got:
                raise ValueError(
                    f"{path}: {key}: expected {expected!r} as in {reference[0]}, got {got!r}"
                )
        if own["slice"] in found:
            raise ValueError(f"{path}: slice {own['slice']} is in {found[own['slice']]} already")
        found[own["slice"]] = path
    assert reference is not None
    shared = dict(reference[1])
    slices, width = shared.pop("slices"), shared.pop("width")
    missing = sorted(set(range(slices)) - set(found))
    if missing:
        raise ValueError(f"parts: expected slices 0 to {slices - 1}, missing {missing}")
    return [found[i] for i in range(slices)], shared, width


def _to_plain(value: Any) -> Any:
    """Return an HDF5 attribute as plain Python; an empty string stands for None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return None if isinstance(value, str) and value == "" else value


def _check_seal(path: Path) -> None:
    seal = path.with_suffix(".json")
    if seal.is_file():
        check_hash(path, read_seal(seal).get("sha256"), seal)


class RowBlock(NamedTuple):
    """Consecutive rows of a part with where they come from.

    Parameters
    ----------
    path : Path
        The part.
    start : int
        First row in the part's table.
    activations : float32 or float16 array of shape (rows, d)
        The rows.
    document, position, token : int32 arrays of shape (rows,)
        Their labels.
    """

    path: Path
    start: int
    activations: np.ndarray
    document: np.ndarray
    position: np.ndarray
    token: np.ndarray


def iterate_tables(
    paths: Sequence[Path], split: str, step: int, *names: str
) -> Iterator[tuple[Any, ...]]:
    """Yield (path, first row, array of each name) over all parts, at most `step` rows at a time."""
    for path in paths:
        with open_file(path) as file:
            table = file[split]
            for start in range(0, len(table["activations"]), step):
                yield path, start, *(table[name][start : start + step] for name in names)


def iterate_blocks(paths: Sequence[Path], split: str, step: int) -> Iterator[RowBlock]:
    """Yield the rows of all parts, at most `step` at a time."""
    return starmap(RowBlock, iterate_tables(paths, split, step, "activations", *LABELS))
