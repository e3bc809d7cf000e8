"""Where text comes from: the sae-probes package, the hub, local data sets, plain files."""

from __future__ import annotations

import difflib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import zstandard

from dbksvd.base.old_settings import build_settings, check_at_least

PROBE_PACKAGE = "sae_probes"
PROBE_FOLDER = "data/cleaned_data"
PROBE_SUFFIX = ".csv.zst"
PROBE_COLUMN = "prompt"

NamedTexts = tuple[str, Iterable[Any]]


@dataclass(frozen=True)
class _Source:
    """Settings of one source; each kind uses some of them."""

    kind: str
    path: str | None = None
    name: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    column: str = "text"
    streaming: bool = False
    datasets: list[str] | None = None
    skip: int = 0
    limit: int | None = None


def read_source(settings: Mapping[str, Any], where: str = "text.sources") -> Iterator[NamedTexts]:
    """Yield (name, texts) of one source; a text that is not a string counts as empty.

    Parameters
    ----------
    settings : mapping
        ``kind`` is one of

        - ``sae_probes``: the data sets that the installed package sae-probes carries, or those
          in ``datasets``; every data set is a source of its own name;
        - ``hub``: ``name``, ``config``, ``split``, ``revision``, ``column``, ``streaming`` of
          :func:`datasets.load_dataset`, with remote code off; a local folder of the same layout
          does as well;
        - ``local_dataset``: ``path`` of a folder written by ``save_to_disk`` or of .parquet or
          .csv files, with ``column`` (and ``split`` for a folder with several);
        - ``file``: ``path`` of a .txt file, one document per line, or of a .jsonl file with the
          text in the field ``column``.

        ``skip`` leaves out so many documents at the beginning of any kind but the first, and
        ``limit`` ends it after so many more.
    where : str
        Name of the setting, for messages.

    Raises
    ------
    ValueError, FileNotFoundError
        If a key is unknown, a column or file is missing, or the data cannot be read.
    """
    source = build_settings(_Source, settings, where)
    check_at_least(1, where, limit=source.limit)
    check_at_least(0, where, skip=source.skip)
    if source.kind == "sae_probes":
        for path in list_probe_datasets(source.datasets, f"{where}.datasets"):
            name = path.name.removesuffix(PROBE_SUFFIX)
            yield f"sae_probes/{name}", read_csv_texts(path)
        return
    readers = {"hub": _read_hub, "local_dataset": _read_local_dataset, "file": _read_file}
    if source.kind not in readers:
        known = ", ".join(["sae_probes", *readers])
        raise ValueError(f"{where}.kind: expected one of {known}, got {source.kind!r}")
    needed = "name" if source.kind == "hub" else "path"
    if not getattr(source, needed):
        raise ValueError(f"{where}.{needed}: missing key")
    name = getattr(source, needed)
    stop = None if source.limit is None else source.skip + source.limit
    yield f"{source.kind}/{name}", islice(readers[source.kind](source, where), source.skip, stop)


def list_probe_datasets(names: Iterable[str] | None, where: str) -> list[Path]:
    """Return the files of data sets in the installed package sae-probes, all of them for None.

    The package is found, not imported: its code is not needed.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.
    ValueError
        If it has no data set of a name.
    """
    spec = importlib.util.find_spec(PROBE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"{where}: expected the installed package sae-probes, found none")
    folder = Path(spec.submodule_search_locations[0]) / PROBE_FOLDER
    files = {path.name.removesuffix(PROBE_SUFFIX): path for path in folder.glob(f"*{PROBE_SUFFIX}")}
    if not files:
        raise FileNotFoundError(f"{where}: expected {folder}/*{PROBE_SUFFIX}, found none")
    if names is None:
        return [files[name] for name in sorted(files)]
    for name in names:
        if name not in files:
            close = difflib.get_close_matches(name, files, n=3, cutoff=0.4)
            hint = f", close names: {', '.join(close)}" if close else ""
            raise ValueError(f"{where}: expected a data set of sae-probes, got {name!r}{hint}")
    return [files[name] for name in names]


def read_csv_texts(path: Path) -> list[Any]:
    """Return the text column of one data set of sae-probes."""
    try:
        return pd.read_csv(path, usecols=[PROBE_COLUMN])[PROBE_COLUMN].tolist()
    except (ValueError, zstandard.ZstdError) as error:
        raise ValueError(f"{path}: expected a CSV with {PROBE_COLUMN!r}, got: {error}") from error


def _read_file(source: _Source, where: str) -> Iterator[Any]:
    path = Path(str(source.path)).expanduser()
    if path.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"{where}.path: expected a .txt or .jsonl file, got {path}")
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                yield line if path.suffix == ".txt" else _parse_line(line, source, number)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, {error}") from error


def _parse_line(line: str, source: _Source, number: int) -> Any:
    if not line.strip():
        return None
    try:
        return json.loads(line)[source.column]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{source.path}: line {number}: expected a JSON object with {source.column!r}, "
            f"got {line.strip()[:60]!r}"
        ) from error


def _read_hub(source: _Source, where: str) -> Iterator[Any]:
    from datasets import load_dataset

    if source.split is None:
        raise ValueError(f"{where}.split: missing key")
    try:
        data = load_dataset(
            source.name,
            source.config,
            split=source.split,
            revision=source.revision,
            streaming=source.streaming,
            trust_remote_code=False,
        )
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{where}.name: expected a data set of the hub, got {source.name!r}: {error}"
        ) from error
    yield from _read_column(data, source, where)


def _read_local_dataset(source: _Source, where: str) -> Iterator[Any]:
    from datasets import DatasetDict, load_dataset, load_from_disk

    path = Path(str(source.path)).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{where}.path: expected a data set, found nothing at {path}")
    files = _list_table_files(path)
    if files:
        # Streaming reads the files where they are, without a copy in the cache of `datasets`.
        kind = files[0].suffix.removeprefix(".")
        names = [str(file) for file in files]
        data = load_dataset(kind, data_files=names, split="train", streaming=True)
    else:
        data = load_from_disk(str(path))
    if isinstance(data, DatasetDict):
        if source.split not in data:
            known = ", ".join(data)
            raise ValueError(f"{where}.split: expected one of {known}, got {source.split!r}")
        data = data[source.split]
    yield from _read_column(data, source, where)


def _list_table_files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix not in (".parquet", ".csv"):
            raise ValueError(f"{path}: expected a .parquet or .csv file or a folder")
        return [path]
    return sorted(path.glob("*.parquet")) or sorted(path.glob("*.csv"))


def _read_column(data: Any, source: _Source, where: str) -> Iterator[Any]:
    # A streamed data set may not know its columns before the first row.
    columns = data.column_names or list(next(iter(data), {}))
    if source.column not in columns:
        known = ", ".join(columns) or "none"
        raise ValueError(f"{where}.column: expected one of {known}, got {source.column!r}")
    for row in data.select_columns([source.column]):
        yield row[source.column]
