"""Folders of tables: which files there are, and of which split."""

from __future__ import annotations

import re
from pathlib import Path

# How `datasets` tells splits by the names of files and folders.
_SPLITS = {
    "train": "train|training",
    "validation": "validation|valid|dev|val",
    "test": "test|testing|eval|evaluation",
}
_UNNAMED = "train"  # the split of files whose names say nothing
_SUFFIXES = (".parquet", ".csv")
_SAVED = ("state.json", "dataset_dict.json")  # in folders of save_to_disk


def is_saved(path: Path) -> bool:
    """Return whether a folder was written by ``save_to_disk``."""
    return path.is_dir() and any((path / name).is_file() for name in _SAVED)


def list_tables(path: Path, where: str) -> list[Path]:
    """Return a .parquet or .csv file, or those of a folder, which are all of one kind.

    Raises
    ------
    ValueError
        If there are none, or both kinds.
    """
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise ValueError(
                f"{where}.path: expected a .parquet or .csv file or a folder at {path}"
            )
        return [path]
    found = [file for suffix in _SUFFIXES for file in path.glob(f"*{suffix}")]
    found = found or [file for suffix in _SUFFIXES for file in path.rglob(f"*{suffix}")]
    if not found:
        raise ValueError(
            f"{where}.path: expected .parquet or .csv files, or a folder written by save_to_disk, "
            f"found none in {path}"
        )
    if len({file.suffix for file in found}) > 1:
        raise ValueError(
            f"{where}.path: expected .parquet files or .csv files, found both in {path}"
        )
    return sorted(found)


def sort_by_split(
    path: Path, files: list[Path], wanted: str | None, where: str
) -> dict[str, list[Path]]:
    """Return the files of each split, by their names and those of folders inside `path`.

    Parameters
    ----------
    path : Path
        The file or folder.
    files : list of Path
        The files, as :func:`list_tables` gives them.
    wanted : str or None
        ``split`` of the settings.
    where : str
        Name of the settings, for messages.

    Raises
    ------
    ValueError
        If some files name a split and others do not, and none is wanted: the others would be left
        out, as `datasets` does.
    """
    splits: dict[str, list[Path]] = {}
    unnamed: list[Path] = []
    for file in files:
        inside = file.name if file == path else str(file.relative_to(path))
        for split, words in _SPLITS.items():
            if re.search(rf"(^|[-._ 0-9/])({words})([-._ 0-9/])", inside):
                splits.setdefault(split, []).append(file)
                break
        else:
            unnamed.append(file)
    known = {split: splits[split] for split in _SPLITS if split in splits}
    if known and unnamed and wanted is None:
        raise ValueError(
            f"{where}.split: expected one of {', '.join(known)} in {path}, since not all files "
            f"name a split, such as {unnamed[0].relative_to(path)}, got None"
        )
    return known or {_UNNAMED: unnamed}


def choose_split(known: list[str], wanted: str | None, path: Path, where: str) -> str:
    """Return the split that is read: the one wanted, or the only one.

    Parameters
    ----------
    known : list of str
        Splits that there are; none where the data says none.
    wanted : str or None
        ``split`` of the settings.
    path, where
        The data, and the name of the settings, for messages.

    Raises
    ------
    ValueError
        If there is no such split, or several and none is wanted.
    """
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted in known:
        return str(wanted)
    expected = f"one of {', '.join(known)}" if known else "none, since it names no split,"
    raise ValueError(f"{where}.split: expected {expected} in {path}, got {wanted!r}")
