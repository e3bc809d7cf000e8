"""Work in blocks: if a device runs out of memory, one try in smaller blocks, then an error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)


def map_blocks(function: Callable[[slice], Result], n: int, rows: int, what: str) -> list[Result]:
    """Return ``function`` of one block of rows after another, in smaller ones if memory runs out.

    Parameters
    ----------
    function : callable
        Gets a slice of ``0 … n − 1``; may be called again for the same rows.
    n, rows : int
        Rows in all, and rows a block.
    what : str
        Names the shapes in the warning and in the error.

    Returns
    -------
    list
        Results of the blocks, in the order of the rows.

    Raises
    ------
    RuntimeError
        If a block does not fit although blocks were halved once before.
    """
    parts: list[Result] = []
    start, halved = 0, False
    while start < n:
        stop = min(start + rows, n)
        try:
            parts.append(function(slice(start, stop)))
        except torch.OutOfMemoryError as error:
            if halved or stop - start == 1:
                raise RuntimeError(
                    f"out of memory with {what}, in blocks of {stop - start} rows"
                ) from error
            halved, rows = True, (stop - start + 1) // 2
        else:
            start = stop
            continue
        # out here the failed call's tensors are gone with its traceback
        _logger.warning("out of memory with %s: going on in blocks of %d rows", what, rows)
    return parts


@contextmanager
def explain_memory(what: str) -> Iterator[None]:
    """Raise RuntimeError, naming `what`, if a device runs out of memory inside."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RuntimeError(f"out of memory with {what}") from error
