"""What a dataset of a user's HDF5 file is made of: all must be there, and nothing unwritten.

HDF5 reads what it does not find as a fill value, zeros as a rule, and says nothing: sources of a
virtual dataset, the end of external storage, chunks that were never written.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import h5py
from h5py import h5s, h5z

MOST_LINKS = 32  # one behind another: more are a circle


class SourceError(ValueError):
    """A file that a dataset cannot be read from; the message names it."""


def list_hdf5_files(path: Path, name: str) -> list[Path]:
    """Return the files that a dataset is read from, `path` first, after checking all of it.

    Parameters
    ----------
    path : Path
        An HDF5 file.
    name : str
        Name of the dataset; soft and external links are followed, and virtual datasets looked
        through.

    Raises
    ------
    ValueError
        If a file is not HDF5, if there is no such dataset, if a file that it is read from is
        missing or too small, or if a part of it was never written; the message names the file.
    """
    with explain_damage(path):
        return list(dict.fromkeys([path, *_walk(path, name, MOST_LINKS)]))


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turn whatever h5py raises on a damaged file into a ValueError that names it."""
    try:
        yield
    except SourceError:
        raise  # names a file already
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: expected a whole HDF5 file, got: {error}") from error


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise SourceError(f"{path}: expected a whole HDF5 file, got: {error}") from error


def _walk(path: Path, name: str, links_left: int) -> Iterator[Path]:
    """Yield the further files behind a dataset."""
    if not links_left:
        raise SourceError(f"{path}: expected a dataset {name!r}, got a circle of links")
    with _open(path) as file:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        group: h5py.Group | h5py.Dataset = file
        for place, part in enumerate(parts):
            link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
            rest = parts[place + 1 :]
            if isinstance(link, h5py.ExternalLink):
                source = _locate(link.filename, path, "HDF5_EXT_PREFIX", f"the link {name!r} to")
                yield source
                yield from _walk(source, "/".join([link.path, *rest]), links_left - 1)
                return
            if isinstance(link, h5py.SoftLink):
                target = PurePosixPath("/", *parts[:place], link.path, *rest)
                yield from _walk(path, str(target), links_left - 1)
                return
            if link is None:
                raise SourceError(f"{path}: expected a dataset {name!r}, found {sorted(file)}")
            group = group[part]
        if not isinstance(group, h5py.Dataset):
            raise SourceError(f"{path}: expected a dataset {name!r}, found {sorted(file)}")
        yield from _check_dataset(path, group, links_left)


def _check_dataset(path: Path, dataset: h5py.Dataset, links_left: int) -> Iterator[Path]:
    where = f"{path}: dataset {dataset.name!r}"
    if dataset.is_virtual:
        yield from _check_virtual(path, dataset, links_left)
        return
    if dataset.external:
        yield from _check_external(dataset, where)
        return
    creation = dataset.id.get_create_plist()
    for number in range(creation.get_nfilters()):
        code, _, _, label = creation.get_filter(number)
        if not h5z.filter_avail(code):
            raise SourceError(
                f"{where}: expected a filter that HDF5 has here, such as gzip, got number {code} "
                f"({label.decode(errors='replace')})"
            )
    if not dataset.size:
        return  # refused for its shape
    if dataset.chunks:
        expected = math.prod(
            -(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
        )
        written = dataset.id.get_num_chunks()
    else:
        expected, written = 1, int(dataset.id.get_storage_size() > 0)
    if written < expected:
        what = f"{written} of {expected} chunks are" if dataset.chunks else "nothing is"
        raise SourceError(
            f"{where}: expected data, {what} written: HDF5 would read {dataset.fillvalue} for the "
            "rest"
        )


def _check_external(dataset: h5py.Dataset, where: str) -> Iterator[Path]:
    needed = dataset.size * dataset.dtype.itemsize
    for name, offset, size in dataset.external:
        source = Path(os.environ.get("HDF5_EXTFILE_PREFIX", ""), name)  # as HDF5 looks for it
        if not source.is_file():
            raise SourceError(f"{where}: expected its data in {source}, no such file")
        used = min(size, needed)
        if source.stat().st_size < offset + used:
            raise SourceError(
                f"{where}: expected {used} bytes of data at byte {offset} of {source}, got a file "
                f"of {source.stat().st_size} bytes"
            )
        needed -= used
        yield source.resolve()


def _check_virtual(path: Path, dataset: h5py.Dataset, links_left: int) -> Iterator[Path]:
    where = f"{path}: virtual dataset {dataset.name!r}"
    mapped = 0
    for mapping in dataset.virtual_sources():
        if "%b" in mapping.file_name + mapping.dset_name:
            raise SourceError(f"{where}: expected sources by name, got {mapping.file_name!r}")
        source = path
        if mapping.file_name != ".":
            source = _locate(mapping.file_name, path, "HDF5_VDS_PREFIX", f"{dataset.name!r} from")
            yield source
        yield from _walk(source, mapping.dset_name, links_left - 1)
        with _open(source) as file:
            shape = file[mapping.dset_name].shape
        count, space = mapping.vspace.get_select_npoints(), mapping.src_space
        if space.get_select_type() == h5s.SEL_ALL:
            is_whole = math.prod(shape) == count
        else:
            last = space.get_select_bounds()[1]
            is_whole = len(last) == len(shape) and all(map(operator.lt, last, shape))
        if not is_whole:
            raise SourceError(
                f"{where}: expected {count} values from {mapping.dset_name!r} in {source}, got an "
                f"array of shape {tuple(shape)}"
            )
        mapped += count
    if mapped != dataset.size:
        raise SourceError(
            f"{where}: expected a source for each of {dataset.size} values once, got {mapped}"
        )


def _locate(name: str, behind: Path, variable: str, what: str) -> Path:
    """Return the file that HDF5 opens for a name in another file, in HDF5's own order."""
    last = Path(name).name if Path(name).is_absolute() else name
    folders = [Path(prefix) for prefix in os.environ.get(variable, "").split(":") if prefix]
    folders += [behind.parent, Path(), behind.resolve().parent]
    candidates = [Path(name)] if Path(name).is_absolute() else []
    candidates += [folder / last for folder in folders]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise SourceError(f"{behind}: expected {what} {candidates[0]}, no such file")
