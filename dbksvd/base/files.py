"""Reading and writing files so that nothing half-written is ever seen."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_LFS_MARK = b"version https://git-lfs"
# What the name of a seal gets where a file is not what it says.
DAMAGED = ".damaged"
# The temporary names of `replace_file` and `replace_folder`: a dot, the name, 8 characters.
TEMPORARY_NAME = re.compile(r"\..+-[a-z0-9_]{8}(\.[^.]+)?")


class DamagedFileError(ValueError):
    """A file that is not what was written, though the workflow can make it anew.

    Parameters
    ----------
    reason : str
        File, what was expected and what came.
    seal : path
        The file without which a rerun of the workflow makes all that it describes anew.
    """

    def __init__(self, reason: str, seal: str | os.PathLike[str]) -> None:
        super().__init__(f"{reason}; delete {os.fspath(seal)} and run again")
        self.reason, self.seal = reason, Path(seal)


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends well.

    The data is flushed to disk before the rename. If the block raises (a full disk, Ctrl-C), the
    temporary file is removed and `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; put it there when the block ends well.

    As `replace_file`, for results made of several files. Whatever is there is lost: a folder that
    a user names is for :func:`dbksvd.base.saving.Folder`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (
        Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent)) for _ in range(2)
    )
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
                if not file.is_symlink():  # safetensors lets nobody but the owner read
                    file.chmod(0o644)
        temporary.chmod(0o755)
        if path.exists():  # renamed, since a kill while files are deleted would leave some of them
            path.rename(old)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove and return temporary files and folders below `folder` that a killed process left.

    Nothing may write there at the same time.
    """
    found = [path for path in Path(folder).rglob(".*") if TEMPORARY_NAME.fullmatch(path.name)]
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # gone where its folder was one of them
    return found


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented JSON, atomically. NaN is refused: it is not JSON."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with replace_file(path) as temporary:
        temporary.write_text(text)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, nested without end
        if is_lfs_pointer(path):
            raise ValueError(
                f"{path}: expected JSON, got a pointer of git-lfs (git lfs pull fetches the file)"
            ) from error
        if isinstance(error, json.JSONDecodeError):
            raise ValueError(f"{path}: expected JSON, got {error}") from error
        if isinstance(error, RecursionError):
            raise ValueError(f"{path}: expected JSON, got one that is nested too deep") from None
        raise ValueError(f"{path}: expected JSON, got another kind of file: {error}") from error


def is_lfs_pointer(path: str | os.PathLike[str]) -> bool:
    """Return whether a file only stands for one that git-lfs keeps elsewhere."""
    with Path(path).open("rb") as stream:
        return stream.read(len(_LFS_MARK)) == _LFS_MARK


def hash_file(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def recall_hash(path: str | os.PathLike[str], record: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file, which is read again only where it has changed.

    Parameters
    ----------
    path : path
        A file that may be too large to be read each time.
    record : path
        JSON of an earlier call with size, times and inode of the file; written anew where they
        are others, if that is possible.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    state = Path(path).stat()
    known = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = read_json(record)
        if content["state"] == known:
            return str(content["sha256"])
    # of the state before reading: a change while it is read is seen the next time
    sha256 = hash_file(path)
    with suppress(OSError):
        write_json(record, {"state": known, "sha256": sha256})
    return sha256


def hash_files(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return the sha256 of every file below `folder`, by its name relative to it."""
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hash_file(path) for path in files}


def hash_content(content: Any) -> str:
    """Return the sha256 of JSON-able content, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_seal(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file of the workflow that says what other files are.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DamagedFileError
        If the file is not a JSON object.
    """
    try:
        content = read_json(path)
    except ValueError as error:
        raise DamagedFileError(str(error), path) from error
    if not isinstance(content, dict):
        raise DamagedFileError(
            f"{path}: expected a JSON object, got {type(content).__name__}", path
        )
    return content


def check_folder(seal: str | os.PathLike[str]) -> Any:
    """Return the content of a seal after checking the files beside it.

    Parameters
    ----------
    seal : path
        JSON file whose entry ``sha256`` holds the hash of each file by its name.

    Raises
    ------
    FileNotFoundError
        If there is no such seal.
    DamagedFileError
        If a file is missing or another.
    """
    content = read_seal(seal)
    for name, sha256 in content.get("sha256", {}).items():
        check_hash(Path(seal).parent / name, sha256, seal)
    return content


def check_hash(
    path: str | os.PathLike[str],
    sha256: Any,
    seal: str | os.PathLike[str],
    record: str | os.PathLike[str] | None = None,
) -> None:
    """Check that a file is the one that its seal describes.

    Parameters
    ----------
    path, seal : path
        The file, and the JSON file that holds its hash.
    sha256 : str
        That hash.
    record : path, optional
        Where :func:`recall_hash` keeps it, so that an unchanged file is read once.

    Raises
    ------
    DamagedFileError
        If the file is missing or another.
    """
    if not Path(path).is_file():
        raise DamagedFileError(f"{path}: no such file", seal)
    actual = hash_file(path) if record is None else recall_hash(path, record)
    if actual != sha256:
        raise DamagedFileError(f"{path}: expected sha256 {sha256}, got {actual}", seal)
