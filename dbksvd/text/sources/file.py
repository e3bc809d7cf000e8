"""Plain files: a document a line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from dbksvd.base.local_files import expand_user
from dbksvd.base.settings import Text
from dbksvd.text.sources.entry import ColumnSettings, NamedTexts, Source, list_files
from dbksvd.text.sources.local_checks import check_file


class FileSettings(ColumnSettings):
    """A .txt file, one document a line, or a .jsonl file with the text in the field `column`.

    UTF-8, with or without a byte order mark. A .txt file has no `column`.
    """

    kind: Literal["file"]
    """Kind of source."""
    path: Text
    """The file."""

    @model_validator(mode="after")
    def _check_column(self) -> FileSettings:
        default = type(self).model_fields["column"].default
        if self.path.endswith(".txt") and self.column != default:
            raise ValueError(f"column: expected none for a .txt file, got {self.column!r}")
        return self


def read(settings: FileSettings, where: str) -> Iterator[NamedTexts]:
    """Yield the one name and its texts."""
    yield f"file/{settings.path}", settings.cut(_read_lines(settings, where))


def _read_lines(settings: FileSettings, where: str) -> Iterator[Any]:
    path = expand_user(settings.path).absolute()
    if path.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"{where}.path: expected a .txt or .jsonl file, got {path}")
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none"
        raise FileNotFoundError(f"{where}.path: expected a file, found {found} at {path}")
    _check_start(path)
    number = 0
    try:
        # Windows' editors begin UTF-8 with a mark, which is no text.
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if "\0" in line:
                    raise ValueError(f"{path}: line {number}: expected text, got a NUL character")
                if path.suffix == ".txt":
                    yield line
                else:
                    yield _parse_line(line, settings.column, f"{path}: line {number}")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, got other bytes after line {number}: {error}"
        ) from error


def _check_start(path: Path) -> None:
    with path.open("rb") as stream:
        start = stream.read(4)
    if not start:
        raise ValueError(f"{path}: expected text, got an empty file")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{path}: expected UTF-8 text, got UTF-16 (its byte order mark)")


def _parse_line(line: str, column: str, where: str) -> Any:
    if not line.strip():
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{where}: expected a JSON object with {column!r}, got {line.strip()[:60]!r}"
        ) from error
    if not isinstance(record, dict):
        raise ValueError(
            f"{where}: expected a JSON object with {column!r}, got {line.strip()[:60]!r}"
        )
    if column not in record:
        fields = ", ".join(map(repr, record)) or "none"
        raise ValueError(
            f"{where}: expected a JSON object with {column!r}, got the fields {fields[:200]}"
        )
    text = record[column]
    if text is not None and not isinstance(text, str):
        raise ValueError(
            f"{where}: expected text in {column!r}, got {type(text).__name__} {str(text)[:60]}"
        )
    return text


def list_local_files(settings: FileSettings) -> list[Path]:
    """Return the file."""
    return list_files(settings.path)


SOURCE = Source(FileSettings, read, local_files=list_local_files, check=check_file)
