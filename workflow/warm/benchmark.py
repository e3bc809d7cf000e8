"""Snakemake's benchmark files, which count what works for a job in a fork of a warm process."""

from __future__ import annotations

from typing import Any

import psutil
from snakemake.benchmark import BenchmarkTimer

from workflow.warm.processes import list_children, list_descendants, open_processes
from workflow.warm.scripts import WarmScripts


def count_forks(warm: WarmScripts) -> None:
    """Let this run's benchmarks count the forks of warm processes as children of their jobs."""

    class JobProcess(psutil.Process):
        def children(self, recursive: bool = False) -> list[psutil.Process]:
            pids = list_descendants(self.pid) if recursive else iter(list_children(self.pid))
            found = open_processes(pids)
            return found + warm.find_children(self.pid, *(one.pid for one in found))

    original = BenchmarkTimer.__init__

    def __init__(self: Any, pid: int, *arguments: Any, **options: Any) -> None:  # noqa: N807
        original(self, pid, *arguments, **options)
        self.main = JobProcess(pid)

    BenchmarkTimer.__init__ = __init__
