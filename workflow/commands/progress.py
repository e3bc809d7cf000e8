"""One line of progress in place of Snakemake's log, which stays in ``.snakemake/log``."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from workflow.commands.pace import Pace

STEPS = re.compile(r"^(\d+) of (\d+) steps")
COUNT = re.compile(r"^(\w+) +(\d+)$")
STARTED = re.compile(r"^local(?:rule|checkpoint) (\w+):$|^(?:rule|checkpoint) (\w+):$")
JOB = re.compile(r"^    jobid: (\d+)$")
ENDED = re.compile(r"^Finished jobid: (\d+)")
WILDCARDS = re.compile(r"^    wildcards: (.*)$")
# What our own rules and handlers say while Snakemake logs its jobs.
OURS = ("error:", "note:", "warning:", "code of ", "first look:")
# From here on Snakemake has logged all; what follows is ours.
LAST = "Complete log(s):"
FORMAT = "{desc}: {n_fmt} of {total_fmt} jobs {bar} {elapsed} spent, {left}{postfix}"
# Of a run that fails before its first job, the last lines say why.
KEPT = 30
# Least time between two lines of progress, where there is no terminal.
PLAIN_SECONDS = 15.0
# While no job ends: seconds between two looks at the clock, on a terminal and elsewhere.
MOVING_TICK, PLAIN_TICK = 1.0, 60.0


class Progress:
    """Reads Snakemake's output as it comes.

    Parameters
    ----------
    bar : tqdm
        Shows how many jobs are done, of how many, and its `left`, the seconds that are left.
    clock : callable
        Returns the time in seconds.
    """

    def __init__(self, bar: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.bar = bar
        self._clock, self._pace = clock, Pace()
        self._lock = threading.Lock()
        self.recent: deque[str] = deque(maxlen=KEPT)
        self.is_over = self.has_spoken = False
        self._rule = ""
        self._is_new = self._is_plan = False  # a rule whose job has no number yet; a table of jobs

    def read(self, line: str) -> str | None:
        """Take in a line; return it if people should see it."""
        with self._lock:
            return self._read(line)

    def refresh(self) -> None:
        """Show the time that is left now; another thread may call this."""
        with self._lock:
            self._show()

    def _read(self, line: str) -> str | None:
        if self.is_over:
            self.has_spoken = True
            return None if line.startswith("Elapsed time:") else line
        self.recent.append(line)
        if line.startswith(LAST):
            self.is_over = True
        elif found := STEPS.match(line):
            self._move(int(found[1]), int(found[2]))
        elif line == "Job stats:":
            self._is_plan = True
        elif self._is_plan and (found := COUNT.match(line)):
            self._plan(found[1], int(found[2]))
        elif found := STARTED.match(line):
            self._rule, self._is_new = found[1] or found[2], True
            self.bar.set_postfix_str(self._rule)
        elif self._is_new and (found := JOB.match(line)):
            self._is_new = False
            self._pace.begin(found[1], self._rule, self._clock())
        elif found := ENDED.match(line):
            self._pace.end(found[1], self._clock())
        elif found := WILDCARDS.match(line):
            values = [pair.partition("=")[2] for pair in found[1].split(", ")]
            self.bar.set_postfix_str(f"{self._rule} {' '.join(values)}")
        elif line.startswith(OURS):
            self.has_spoken = True
            return line
        return None

    def explain(self, status: int) -> Iterator[str]:
        """Yield what Snakemake said last, if it failed and nothing else has said why."""
        if status and not self.has_spoken:
            yield from self.recent

    def _plan(self, rule: str, count: int) -> None:
        if rule == "total":
            self._is_plan = False
            self._move(self.bar.n, count)
        else:
            self._pace.plan(rule, count)

    def _move(self, done: int, total: int) -> None:
        self.bar.total = total
        self.bar.update(done - self.bar.n)
        self._show()

    def _show(self) -> None:
        self.bar.left = self._pace.estimate(self._clock())
        self.bar.refresh()


def describe_left(seconds: float | None) -> str:
    """Return how long a run still takes, as far as it is known."""
    return "time left not known yet" if seconds is None else f"about {tell_time(seconds)} left"


def tell_time(seconds: float) -> str:
    """Return minutes and seconds, or hours, minutes and seconds."""
    return str(tqdm.format_interval(seconds))


class MovingBar(tqdm):  # type: ignore[type-arg]
    """Progress as one line that moves, on a terminal."""

    left: float | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        """Fields of the line: those of tqdm, and the time that is left."""
        return {**super().format_dict, "left": describe_left(self.left)}


class PlainBar:
    """Progress as lines, where stderr is a file or a pipe: one in a while, of what is done.

    Parameters
    ----------
    seconds : float
        Least time between two lines.
    """

    def __init__(self, seconds: float = PLAIN_SECONDS) -> None:
        self.n, self.total, self.seconds = 0, 0, seconds
        self.left: float | None = None
        self._start = self._told = time.monotonic()
        self._postfix = ""

    def __enter__(self) -> PlainBar:
        """Return itself, as tqdm's bars do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do as `close`."""
        self.close()

    def update(self, count: int) -> None:
        """Count jobs that have ended."""
        self.n += count

    def set_postfix_str(self, text: str) -> None:
        """Take in what has just begun."""
        self._postfix = text

    def refresh(self) -> None:
        """Print a line, if the last one is long ago."""
        now = time.monotonic()
        if now - self._told >= self.seconds:
            self._told = now
            tqdm.write(self.describe(now - self._start), file=sys.stderr)

    def describe(self, seconds: float) -> str:
        """Return the line after so many seconds."""
        return (
            f"run: {self.n} of {self.total} jobs done, {tell_time(seconds)} spent, "
            f"{describe_left(self.left)}, now {self._postfix}"
        )

    def close(self) -> None:
        """Do nothing: there is no line to end."""


@contextmanager
def tick(progress: Progress, seconds: float) -> Iterator[None]:
    """Refresh progress at intervals, also while no line comes."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            if not progress.is_over:
                progress.refresh()

    ticking = threading.Thread(target=run, daemon=True)
    ticking.start()
    try:
        yield
    finally:
        over.set()
        ticking.join()


def follow(lines: Iterable[str]) -> Progress:
    """Show progress on stderr while lines come; print those that people should see.

    On a terminal it is one line that moves, elsewhere a new line in a while.
    """
    bar: Any
    if sys.stderr.isatty():
        bar, seconds = MovingBar(desc="run", dynamic_ncols=True, bar_format=FORMAT), MOVING_TICK
    else:
        bar, seconds = PlainBar(), PLAIN_TICK
    progress = Progress(bar)
    with bar, tick(progress, seconds):
        for line in lines:
            shown = progress.read(line.rstrip("\n"))
            if progress.is_over:
                bar.close()  # a second time does nothing
            if shown is not None:
                tqdm.write(shown, file=sys.stderr)
    return progress
