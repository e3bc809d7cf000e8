"""One thread setting for everything: torch's own (``torch.set_num_threads``).

The CPU kernels release the interpreter lock and run in plain Python threads, each on its own
samples or atoms. Inside, torch works on one thread, so that no sum is ever split by the number
of threads: results have the same bytes on one thread and on many. Plain threads also have none of
the trouble that OpenMP pools have after ``fork``; torch is held to one thread in a forked child.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# torch's own threads do not survive a fork, and a child that waits for them waits for ever:
# a forked child, such as one of multiprocessing.Pool, works on one thread.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

_workers: ContextVar[int | None] = ContextVar("dbksvd_workers", default=None)


def count_workers() -> int:
    """Return the number of threads kernels may use (torch's, unless one context holds it)."""
    return _workers.get() or torch.get_num_threads()


@contextmanager
def hold_torch_to_one_thread() -> Iterator[int]:
    """Let torch work on one thread inside; yield the number of workers for the kernels."""
    workers = count_workers()
    before = torch.get_num_threads()
    token = _workers.set(workers)
    torch.set_num_threads(1)
    try:
        yield workers
    finally:
        torch.set_num_threads(before)
        _workers.reset(token)


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return ``[function(item) for item in items]``, spread over the workers.

    Parameters
    ----------
    function : callable
        Function of one item. It must release the interpreter lock for threads to gain anything,
        and write only what its item owns.
    items : sequence
        Any number of items; more items than workers balance the load.
    """
    with hold_torch_to_one_thread() as workers:
        if workers == 1 or len(items) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(min(workers, len(items))) as pool:
            return list(pool.map(function, items))
