"""Snakemake's benchmark files, which count what works for a job in a fork of a warm process."""

from __future__ import annotations

from typing import Any

import psutil
from snakemake.benchmark import BenchmarkTimer

from workflow.warm.scripts import WarmScripts


def count_forks(warm: WarmScripts) -> None:
    """Let this run's benchmarks count the forks of warm processes as children of their jobs."""

    class JobProcess(psutil.Process):
        def children(self, recursive: bool = False) -> list[psutil.Process]:
            found = list(super().children(recursive=recursive))
            return found + [fork for one in (self, *found) for fork in warm.find_children(one.pid)]

    original = BenchmarkTimer.__init__

    def __init__(self: Any, pid: int, *arguments: Any, **options: Any) -> None:  # noqa: N807
        original(self, pid, *arguments, **options)
        self.main = JobProcess(pid)

    BenchmarkTimer.__init__ = __init__
