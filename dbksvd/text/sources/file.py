"""Plain files: a document a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from dbksvd.base.settings import Text
from dbksvd.text.sources.entry import ColumnSettings, NamedTexts, Source, list_files
from dbksvd.text.sources.local_checks import check_file


class FileSettings(ColumnSettings):
    """A .txt file, one document a line, or a .jsonl file with the text in the field `column`."""

    kind: Literal["file"]
    """Kind of source."""
    path: Text
    """The file."""


def read(settings: FileSettings, where: str) -> Iterator[NamedTexts]:
    """Yield the one name and its texts."""
    yield f"file/{settings.path}", settings.cut(_read_lines(settings, where))


def _read_lines(settings: FileSettings, where: str) -> Iterator[Any]:
    path = Path(settings.path).expanduser()
    if path.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"{where}.path: expected a .txt or .jsonl file, got {path}")
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                yield line if path.suffix == ".txt" else _parse_line(line, settings, number)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, {error}") from error


def _parse_line(line: str, settings: FileSettings, number: int) -> Any:
    if not line.strip():
        return None
    try:
        return json.loads(line)[settings.column]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{settings.path}: line {number}: expected a JSON object with {settings.column!r}, "
            f"got {line.strip()[:60]!r}"
        ) from error


def list_local_files(settings: FileSettings) -> list[Path]:
    """Return the file."""
    return list_files(settings.path)


SOURCE = Source(FileSettings, read, local_files=list_local_files, check=check_file)
