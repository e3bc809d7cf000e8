"""Local text looked at before anything runs: there, readable, with the column that is asked for.

Only the beginning of a file is read. Functions take settings and their name in messages, such as
``text.sources[0]``, and raise ValueError.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from dbksvd.base.files import read_json
from dbksvd.base.local_files import expand_user, is_path, require_file, require_folder
from dbksvd.base.settings import suggest
from dbksvd.text.sources.tables import choose_split, is_saved, list_tables, sort_by_split

HEAD_BYTES = 2**16
MOST_FILES = 100  # of a folder that are looked at
TEXT_TYPES = ("string", "large_string", "string_view", "null")


def check_file(settings: Any, where: str) -> None:
    """Check a .txt or .jsonl file: UTF-8, and the column in its first line."""
    path = require_file(settings.path, f"{where}.path", "a .txt or .jsonl file")
    if path.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"{where}.path: expected a .txt or .jsonl file, got {path}")
    lines, is_cut = _read_head(path, where)
    if path.suffix == ".txt":
        return
    number = next((place for place, line in enumerate(lines) if line.strip()), None)
    if number is None or (is_cut and number == len(lines) - 1):
        return
    try:
        row = json.loads(lines[number])
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}.path: expected a JSON object a line, got "
            f"{lines[number].strip()[:60]!r} in line {number + 1} of {path}"
        ) from error
    if not isinstance(row, dict):
        raise ValueError(
            f"{where}.path: expected a JSON object a line, got {type(row).__name__} in line "
            f"{number + 1} of {path}"
        )
    _require_column(settings.column, list(row), where, path)


def _read_head(path: Path, where: str) -> tuple[list[str], bool]:
    """Return the first lines, and whether the last of them is cut."""
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    is_cut = len(head) == HEAD_BYTES
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not is_cut or error.start < HEAD_BYTES - 4:  # else a character is cut in two
            raise ValueError(f"{where}.path: expected UTF-8 text in {path}, {error}") from error
        text = head[: error.start].decode("utf-8-sig")
    return text.split("\n"), is_cut


def check_local_dataset(settings: Any, where: str) -> None:
    """Check a .parquet or .csv file, a folder of such files, or one that datasets has saved."""
    path = expand_user(settings.path)
    if not path.is_dir():
        require_file(path, f"{where}.path", "a .parquet or .csv file or a folder")
        if path.suffix not in (".parquet", ".csv"):
            raise ValueError(
                f"{where}.path: expected a .parquet or .csv file or a folder, got {path}"
            )
        _check_table(path, settings.column, where)
        return
    require_folder(path, f"{where}.path", "a folder")
    if is_saved(path):
        _check_saved(path, settings, where)
        return
    splits = sort_by_split(path, list_tables(path, where), settings.split, where)
    split = choose_split(list(splits), settings.split, path, where)
    for table in splits[split][:MOST_FILES]:
        _check_table(table, settings.column, where)


def _check_table(path: Path, column: str, where: str) -> None:
    require_file(path, f"{where}.path", f"a {path.suffix} file")
    if path.suffix == ".csv":
        lines, is_cut = _read_head(path, where)
        if not is_cut or len(lines) > 1:
            _require_column(column, next(csv.reader(lines), []), where, path)
        return
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return
    try:
        schema = parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{where}.path: expected a whole .parquet file at {path}, {reason}"
        ) from error
    _require_column(column, schema.names, where, path)
    kind = str(schema.field(column).type)
    if kind not in TEXT_TYPES and not kind.startswith("dictionary<values=string"):
        raise ValueError(f"{where}.column: expected text in {column!r} of {path}, got {kind}")


def _check_saved(path: Path, settings: Any, where: str) -> None:
    """Check a folder that ``save_to_disk`` wrote, of one data set or of several splits."""
    found = path
    if (path / "dataset_dict.json").is_file():
        splits = read_json(path / "dataset_dict.json").get("splits", [])
        found = path / choose_split(splits, settings.split, path, where)
    if not (found / "state.json").is_file() or not (found / "dataset_info.json").is_file():
        raise ValueError(
            f"{where}.path: expected .parquet or .csv files, or a folder written by save_to_disk, "
            f"found none in {path}"
        )
    columns = read_json(found / "dataset_info.json").get("features") or {}
    _require_column(settings.column, list(columns), where, found)
    for data in read_json(found / "state.json").get("_data_files", []):
        require_file(found / data["filename"], f"{where}.path", "a file of the data set")


def check_hub_name(settings: Any, where: str) -> None:
    """Check that a name which can only be a path is a folder."""
    if is_path(settings.name):
        require_folder(settings.name, f"{where}.name", "a folder, or a name on the hub")


def _require_column(column: str, known: list[str], where: str, path: Path) -> None:
    if column not in known:
        raise ValueError(
            f"{where}.column: expected one of {', '.join(map(str, known)) or 'none'} in {path}"
            f"{suggest(column, map(str, known))}, got {column!r}"
        )
