"""Data sets of the hub, or local folders of the same layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from dbksvd.base.local_files import expand_user, is_path
from dbksvd.base.revisions import is_commit
from dbksvd.base.settings import Text
from dbksvd.text.sources.entry import ColumnSettings, NamedTexts, Source, read_column
from dbksvd.text.sources.local_checks import check_hub_name


class HubSettings(ColumnSettings):
    """A data set of the hub; its remote code is never run."""

    kind: Literal["hub"]
    """Kind of source."""
    name: Text
    """Name on the hub, such as ``Skylion007/openwebtext``, or a local folder of the same layout."""
    config: str | None = None
    """Configuration of the data set, where it has several."""
    split: Text
    """Split of the data set, such as ``train``."""
    revision: str | None = None
    """Commit, branch or tag; null is the newest."""
    streaming: bool = False
    """Whether the text is read over the network, without a copy on disk."""


def read(settings: HubSettings, where: str) -> Iterator[NamedTexts]:
    """Yield the one name and its texts."""
    yield f"hub/{settings.name}", settings.cut(_read_rows(settings, where))


def _read_rows(settings: HubSettings, where: str) -> Iterator[Any]:
    from datasets import load_dataset

    folder = expand_user(settings.name)
    if is_path(settings.name) and not folder.is_dir():
        raise FileNotFoundError(
            f"{where}.name: expected a folder, found none at {folder.absolute()}"
        )
    if folder.is_dir() and settings.revision is not None:
        raise ValueError(
            f"{where}.revision: expected none for the local folder {folder.absolute()}, got "
            f"{settings.revision!r}"
        )
    try:
        data = load_dataset(
            str(folder) if folder.is_dir() else settings.name,
            settings.config,
            split=settings.split,
            revision=settings.revision,
            streaming=settings.streaming,
            trust_remote_code=False,
        )
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{where}.name: expected a data set of the hub, got {settings.name!r}: {error}"
        ) from error
    yield from read_column(data, settings, where)


def describe_read(settings: HubSettings) -> dict[str, Any]:
    """Return what the hub is asked for."""
    return {
        "name": settings.name,
        "config": settings.config,
        "revision": settings.revision,
        "streaming": settings.streaming,
    }


def is_fixed(settings: HubSettings) -> bool:
    """Return whether the revision is a commit: a branch or a tag may move."""
    return is_commit(settings.revision)


SOURCE = Source(HubSettings, read, hub_reads=describe_read, is_fixed=is_fixed, check=check_hub_name)
