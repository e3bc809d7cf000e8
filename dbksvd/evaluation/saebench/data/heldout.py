"""The run's own held-out documents, for evals that read text without labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from dbksvd.text.documents import iterate_documents

_FOLDER: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def serve_heldout(folder: Path | None) -> Iterator[None]:
    """Let evals read the held-out documents of a folder of ``prepare_text`` (None: of none)."""
    token = _FOLDER.set(None if folder is None else folder.resolve())
    try:
        yield
    finally:
        _FOLDER.reset(token)


def read_heldout() -> list[str]:
    """Return the held-out documents, in their order.

    Raises
    ------
    ValueError
        Outside of :func:`serve_heldout`.
    """
    folder = _FOLDER.get()
    if folder is None:
        raise ValueError("datasets: heldout: expected text of the run's own, got none")
    return [document.text for document in iterate_documents(folder, "heldout")]
