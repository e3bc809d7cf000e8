"""Local data sets: folders written by ``save_to_disk``, .parquet and .csv files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from dbksvd.base.settings import Text
from dbksvd.text.sources.entry import ColumnSettings, NamedTexts, Source, list_files, read_column
from dbksvd.text.sources.local_checks import check_local_dataset


class LocalDatasetSettings(ColumnSettings):
    """A folder written by ``save_to_disk``, a .parquet or .csv file, or a folder of such files."""

    kind: Literal["local_dataset"]
    """Kind of source."""
    path: Text
    """The file or folder."""
    split: str | None = None
    """Split of a folder that has several."""


def read(settings: LocalDatasetSettings, where: str) -> Iterator[NamedTexts]:
    """Yield the one name and its texts."""
    yield f"local_dataset/{settings.path}", settings.cut(_read_rows(settings, where))


def _read_rows(settings: LocalDatasetSettings, where: str) -> Iterator[Any]:
    from datasets import DatasetDict, load_dataset, load_from_disk

    path = Path(settings.path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{where}.path: expected a data set, found nothing at {path}")
    files = _list_tables(path)
    if files:
        # Streaming reads the files where they are, without a copy in the cache of `datasets`.
        kind = files[0].suffix.removeprefix(".")
        names = [str(file) for file in files]
        data = load_dataset(kind, data_files=names, split="train", streaming=True)
    else:
        data = load_from_disk(str(path))
    if isinstance(data, DatasetDict):
        if settings.split not in data:
            known = ", ".join(data)
            raise ValueError(f"{where}.split: expected one of {known}, got {settings.split!r}")
        data = data[settings.split]
    yield from read_column(data, settings, where)


def _list_tables(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix not in (".parquet", ".csv"):
            raise ValueError(f"{path}: expected a .parquet or .csv file or a folder")
        return [path]
    return sorted(path.glob("*.parquet")) or sorted(path.glob("*.csv"))


def list_local_files(settings: LocalDatasetSettings) -> list[Path]:
    """Return the file, or all files of the folder."""
    return list_files(settings.path)


SOURCE = Source(LocalDatasetSettings, read, local_files=list_local_files, check=check_local_dataset)
