"""Children of processes from Linux's own lists of them.

psutil finds them by the parent of every process of the machine: 2 ms where there are 150, and
benchmarks ask twice a second for each job.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

PROC = Path("/proc")
# Kernels may be built without these lists.
HAS_LISTS = (PROC / f"{os.getpid()}/task/{os.getpid()}/children").exists()


def list_children(pid: int) -> list[int]:
    """Return the children of a process; none of one that is gone."""
    found: list[int] = []
    if not HAS_LISTS:
        with suppress(psutil.NoSuchProcess):
            found = [child.pid for child in psutil.Process(pid).children()]
        return found
    with suppress(OSError):
        for thread in (PROC / f"{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def list_descendants(pid: int) -> Iterator[int]:
    """Yield the children of a process, and theirs."""
    for child in list_children(pid):
        yield child
        yield from list_descendants(child)


def read_name(pid: int) -> str:
    """Return what a process calls itself; nothing of one that is gone."""
    with suppress(OSError):
        return (PROC / f"{pid}/comm").read_text().rstrip("\n")
    return ""


def open_processes(pids: Iterator[int]) -> list[psutil.Process]:
    """Return those of the processes that there still are."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found
