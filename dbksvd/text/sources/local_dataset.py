"""Local data sets: folders written by ``save_to_disk``, .parquet and .csv files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from dbksvd.base.local_files import expand_user
from dbksvd.base.settings import Text
from dbksvd.text.sources.entry import ColumnSettings, NamedTexts, Source, list_files, read_column
from dbksvd.text.sources.local_checks import check_local_dataset
from dbksvd.text.sources.tables import choose_split, is_saved, list_tables, sort_by_split

_BLOCK = 1 << 20


class LocalDatasetSettings(ColumnSettings):
    """A folder written by ``save_to_disk``, a .parquet or .csv file, or a folder of such files."""

    kind: Literal["local_dataset"]
    """Kind of source."""
    path: Text
    """The file or folder."""
    split: str | None = None
    """Split, as ``save_to_disk`` wrote it or as the files' names say it (``train-0.parquet``); a
    folder with several needs one."""


def read(settings: LocalDatasetSettings, where: str) -> Iterator[NamedTexts]:
    """Yield the one name and its texts."""
    yield f"local_dataset/{settings.path}", settings.cut(_read_rows(settings, where))


def _read_rows(settings: LocalDatasetSettings, where: str) -> Iterator[Any]:
    path = expand_user(settings.path).absolute()
    if not path.exists():
        raise FileNotFoundError(f"{where}.path: expected a data set, found nothing at {path}")
    if is_saved(path):
        yield from _read_saved(path, settings, where)
        return
    splits = sort_by_split(path, list_tables(path, where), settings.split, where)
    for file in splits[choose_split(list(splits), settings.split, path, where)]:
        yield from _read_table(file, settings, where)


def _read_saved(path: Path, settings: LocalDatasetSettings, where: str) -> Iterator[Any]:
    from datasets import DatasetDict, load_from_disk

    with _name_file(path, where, "a folder of save_to_disk"):
        data = load_from_disk(str(path))
        if isinstance(data, DatasetDict):
            data = data[choose_split(list(map(str, data)), settings.split, path, where)]
        elif settings.split is not None:
            known = [] if data.split is None else [str(data.split)]
            choose_split(known, settings.split, path, where)
        yield from read_column(data, settings, where)


def _read_table(file: Path, settings: LocalDatasetSettings, where: str) -> Iterator[Any]:
    from datasets import load_dataset

    kind = file.suffix.removeprefix(".")
    with _name_file(file, where, f"a {kind} file"):
        if kind == "csv":
            _refuse_nul(file)
        # Streaming reads the file where it is, without a copy in the cache of `datasets`.
        data = load_dataset(kind, data_files=[str(file)], split="train", streaming=True)
        yield from read_column(data, settings, where)


@contextmanager
def _name_file(path: Path, where: str, what: str) -> Iterator[None]:
    """Let the errors of a reader name the file."""
    try:
        yield
    except (ValueError, OSError, TypeError, KeyError, NotImplementedError) as error:
        if str(error).startswith((where, str(path))):
            raise
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: expected {what}, got {type(error).__name__}: {reason}"
        ) from error


def _refuse_nul(file: Path) -> None:
    # the parser would end the text there, and say nothing
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            if b"\0" in block:
                raise ValueError(f"{file}: expected UTF-8 text, got a NUL character (UTF-16?)")


def list_local_files(settings: LocalDatasetSettings) -> list[Path]:
    """Return the file, or all files of the folder."""
    return list_files(settings.path)


SOURCE = Source(LocalDatasetSettings, read, local_files=list_local_files, check=check_local_dataset)
