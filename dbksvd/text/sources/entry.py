"""What a text source says of itself: everything that others need of it, in one entry.

A source is one module that exports a `Source`, and one line in
:mod:`dbksvd.text.sources.registry`. The module is imported when a config is checked, so that it
must not import pandas or `datasets` at its top: what reads is imported inside ``read``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dbksvd.base.local_files import expand_user
from dbksvd.base.settings import Count, NonNegativeInt, Settings, Text

# of `datasets`; a column without any value has the last
TEXT_TYPES = ("string", "large_string", "string_view", "null")

NamedTexts = tuple[str, Iterable[Any]]


class SourceSettings(Settings):
    """Settings of a text source; a subclass allows one value of `kind`, its name."""

    kind: str
    """Kind of source."""


class ColumnSettings(SourceSettings):
    """A source of rows with a column of text, of which a range can be read."""

    column: Text = "text"
    """Column, or field of a JSON object, that holds the text."""
    skip: NonNegativeInt = 0
    """Documents left out at the beginning."""
    limit: Count | None = None
    """Most documents read after those; null reads all."""

    def cut(self, texts: Iterator[Any]) -> Iterator[Any]:
        """Return the texts that `skip` and `limit` leave."""
        return islice(texts, self.skip, None if self.limit is None else self.skip + self.limit)


def _read_no_hub(_settings: Any) -> None:
    """Return that nothing is read from the hub."""


def _list_no_files(_settings: Any) -> list[Path]:
    """Return that no local file is read."""
    return []


def _is_not_fixed(_settings: Any) -> bool:
    """Return that the content may change while the config stays the same."""
    return False


def _accept(_settings: Any, _where: str) -> None:
    """Accept whatever is on this machine."""


@dataclass(frozen=True)
class Source:
    """The entry of a kind of text source.

    Parameters
    ----------
    settings : type
        A subclass of `SourceSettings` with a field ``kind`` whose only value is the name in the
        registry.
    read : callable
        ``read(settings, where)`` yields (name, texts); a text that is not a string counts as empty.
        `where` is the name of the settings in messages, such as ``text.sources[0]``. Raises
        ValueError or OSError where the data cannot be read.
    hub_reads : callable
        ``hub_reads(settings)`` returns the data set of the hub that is read, as ``name``,
        ``config``, ``revision`` and ``streaming`` of `datasets.load_dataset`, or None.
    local_files : callable
        ``local_files(settings)`` returns the files of this machine that are read, in a fixed
        order. The config only names them, so their content decides whether text is read again.
    is_fixed : callable
        ``is_fixed(settings)`` returns whether the settings alone fix every byte that is read.
    check : callable
        ``check(settings, where)`` raises a ValueError where what is on this machine cannot be read
        as asked for; it looks at little of it, and imports nothing heavy.
    """

    settings: type[SourceSettings]
    read: Callable[[Any, str], Iterator[NamedTexts]]
    hub_reads: Callable[[Any], dict[str, Any] | None] = _read_no_hub
    local_files: Callable[[Any], list[Path]] = _list_no_files
    is_fixed: Callable[[Any], bool] = _is_not_fixed
    check: Callable[[Any, str], None] = _accept


def list_files(path: str) -> list[Path]:
    """Return a file, or all files below a folder in a fixed order."""
    found = expand_user(path)
    if not found.is_dir():
        return [found]
    return [file for file in sorted(found.rglob("*")) if not file.is_dir()]


def read_column(data: Any, settings: ColumnSettings, where: str) -> Iterator[Any]:
    """Yield the text column of a data set of `datasets`.

    Raises
    ------
    ValueError
        If it has no such column, or one of something else than text.
    """
    # A streamed data set may not know its columns before the first row.
    columns = data.column_names or list(next(iter(data), {}))
    if not columns:
        raise ValueError(f"{where}: expected rows, found none")
    if settings.column not in columns:
        known = ", ".join(columns) or "none"
        raise ValueError(f"{where}.column: expected one of {known}, got {settings.column!r}")
    kind = (data.features or {}).get(settings.column)
    if kind is not None and getattr(kind, "dtype", None) not in TEXT_TYPES:
        shown = getattr(kind, "dtype", type(kind).__name__)
        raise ValueError(
            f"{where}.column: expected a column of text, got {shown} in {settings.column!r}"
        )
    for row in data.select_columns([settings.column]):
        text = row[settings.column]
        if text is not None and not isinstance(text, str):
            raise ValueError(
                f"{where}.column: expected text in {settings.column!r}, got "
                f"{type(text).__name__} {str(text)[:60]}"
            )
        yield text
