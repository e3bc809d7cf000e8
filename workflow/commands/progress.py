"""One line of progress in place of Snakemake's log, which stays in ``.snakemake/log``."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

STEPS = re.compile(r"^(\d+) of (\d+) steps")
COUNT = re.compile(r"^total +(\d+)$")
STARTED = re.compile(r"^local(?:rule|checkpoint) (\w+):$|^(?:rule|checkpoint) (\w+):$")
WILDCARDS = re.compile(r"^    wildcards: (.*)$")
# What our own rules and handlers say while Snakemake logs its jobs.
OURS = ("error:", "note:", "warning:", "code of ")
# From here on Snakemake has logged all; what follows is ours.
LAST = "Complete log(s):"
# Of a run that fails before its first job, the last lines say why.
KEPT = 30


class Progress:
    """Reads Snakemake's output as it comes.

    Parameters
    ----------
    bar : tqdm
        Shows how many jobs are done, of how many, and the time left.
    """

    def __init__(self, bar: Any) -> None:
        self.bar = bar
        self.recent: deque[str] = deque(maxlen=KEPT)
        self.is_over = self.has_spoken = False
        self._rule = ""

    def read(self, line: str) -> str | None:
        """Take in a line; return it if people should see it."""
        if self.is_over:
            self.has_spoken = True
            return None if line.startswith("Elapsed time:") else line
        self.recent.append(line)
        if line.startswith(LAST):
            self.is_over = True
        elif found := STEPS.match(line):
            self._move(int(found[1]), int(found[2]))
        elif found := COUNT.match(line):
            self._move(self.bar.n, int(found[1]))
        elif found := STARTED.match(line):
            self._rule = found[1] or found[2]
            self.bar.set_postfix_str(self._rule)
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

    def _move(self, done: int, total: int) -> None:
        self.bar.total = total
        self.bar.update(done - self.bar.n)
        self.bar.refresh()


def follow(lines: Iterable[str]) -> Progress:
    """Show progress on stderr while lines come; print those that people should see."""
    with tqdm(unit="job", desc="run", dynamic_ncols=True, smoothing=0.1) as bar:
        progress = Progress(bar)
        for line in lines:
            shown = progress.read(line.rstrip("\n"))
            if progress.is_over:
                bar.close()  # a second time does nothing
            if shown is not None:
                tqdm.write(shown, file=sys.stderr)
    return progress
