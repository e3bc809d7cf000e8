"""Writing where a user says: nothing that someone else put there is lost."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from dbksvd.base.files import DAMAGED, TEMPORARY_NAME, read_json, replace_folder

# Snakemake's own mark in a folder that it made.
SNAKEMAKE_MARKS = (".snakemake_timestamp",)


@dataclass(frozen=True)
class Folder:
    """What one of our folders holds, by which it is told from a folder of someone else.

    Parameters
    ----------
    names : tuple of str
        Names (patterns with ``*``) of all files and folders in it.
    seal : str, optional
        The one of them that is a JSON object.
    keys : tuple of str
        Some of the keys of that object.
    """

    names: tuple[str, ...]
    seal: str | None = None
    keys: tuple[str, ...] = ()

    def check(self, path: str | os.PathLike[str]) -> Path:
        """Return where `path` really is, if nobody loses anything when it is replaced.

        Raises
        ------
        ValueError
            If `path` is not a folder, or holds what is not ours; the message names it.
        """
        folder = resolve_folder(path)
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if entry.name in SNAKEMAKE_MARKS or TEMPORARY_NAME.fullmatch(entry.name):
                continue
            name = entry.name.removesuffix(DAMAGED)
            if entry.is_symlink() or not any(fnmatchcase(name, known) for known in self.names):
                raise ValueError(
                    f"{path}: expected a new folder, or one that holds nothing but "
                    f"{', '.join(self.names)}, since it is replaced as a whole, got {entry.name}"
                )
            if entry.name == self.seal:
                check_replaceable(entry, self.keys)
        return folder

    @contextmanager
    def replace(self, path: str | os.PathLike[str]) -> Iterator[Path]:
        """Yield a temporary folder that replaces `path` at the end, if all there is our own.

        As :func:`dbksvd.base.files.replace_folder`, for folders that a user names. The check comes
        before anything is written, and once more before the old folder is replaced; a link to a
        folder stays a link.

        Raises
        ------
        ValueError
            As :meth:`check`.
        """
        with replace_folder(self.check(path)) as temporary:
            yield temporary
            self.check(path)


@contextmanager
def write_beside(
    path: str | os.PathLike[str], names: Sequence[str], check: Callable[[Path], None]
) -> Iterator[Path]:
    """Yield a temporary folder whose files go into the folder `path`, beside what is there.

    A new folder appears as a whole. In one that is there, each file is replaced in one step, in
    the order of `names`, after all of them are on disk.

    Parameters
    ----------
    path : path
        Folder to write to.
    names : sequence of str
        All files that are written, in the order in which they replace older ones.
    check : callable
        Is given the path of each older file of these names, and raises a ValueError if it is not
        one that may be replaced.

    Raises
    ------
    ValueError
        If `path` is not a folder, or a file of these names is something else.
    """
    folder = resolve_folder(path)
    check_files(folder, names, check)
    if not folder.exists():
        with replace_folder(folder) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory(prefix=".save-", dir=folder) as name:
        yield Path(name)
        check_files(folder, names, check)
        for file in (Path(name) / each for each in names):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
            file.chmod(0o644)
        for each in names:
            (Path(name) / each).replace(folder / each)


def check_replaceable(path: str | os.PathLike[str], keys: Sequence[str]) -> None:
    """Check that a file which nobody named, such as a seal, may be written.

    Parameters
    ----------
    path : path
        The file; where there is none, all is well.
    keys : sequence of str
        Keys that an older one has, as a JSON object.

    Raises
    ------
    ValueError
        If there is something else.
    """
    path = Path(path)
    if not os.path.lexists(path):
        return
    try:
        content = read_json(path)
    except (ValueError, OSError):
        content = None
    if not isinstance(content, dict) or not set(keys) <= content.keys():
        raise ValueError(
            f"{path}: expected no file, or one with {', '.join(keys)} that can be replaced, "
            "got another"
        )


def check_files(folder: Path, names: Sequence[str], check: Callable[[Path], None]) -> None:
    """Check that the files `names` of a folder may be replaced, where they are there.

    Raises
    ------
    ValueError
        If one is a link or a folder, or `check` refuses it.
    """
    for file in (folder / name for name in names):
        if not os.path.lexists(file):
            continue
        if file.is_symlink() or not file.is_file():
            kind = "a link" if file.is_symlink() else "a folder"
            raise ValueError(f"{file}: expected a file that can be replaced, got {kind}")
        check(file)


def resolve_folder(path: str | os.PathLike[str]) -> Path:
    """Return a folder without links in its path, so that a link to it outlives its replacement."""
    folder = Path(os.path.realpath(path))
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"{path}: expected a folder to write to, got a file")
    return folder
