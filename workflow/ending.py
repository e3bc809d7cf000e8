"""What a run prints last: its table, or what failed and why."""

from __future__ import annotations

import atexit
import csv
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

WIDTH = 100
ROWS = 40
FAILURES = 10
KEYS = ("site", "method", "n_atoms", "k", "seeds")
FAILED = "failed"


def say_last(text: str) -> None:
    """Print a text when all else of the run has been printed."""
    atexit.register(lambda: sys.stderr.write(f"{text}\n"))


def find_reason(log: str | Path) -> str:
    """Return the line of a log that says why its job failed."""
    try:
        text = Path(log).read_text(errors="replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    found = errors or lines
    return found[-1] if found else "nothing in its log: was it killed, or out of memory?"


def name_job(job: Any) -> str:
    """Return a job as people call it: its rule and its wildcards."""
    wildcards = ", ".join(f"{key}={value}" for key, value in job.wildcards.items())
    return f"{job.rule.name} ({wildcards})" if wildcards else str(job.rule.name)


def list_single(jobs: Iterable[Any]) -> Iterator[Any]:
    """Yield jobs, and those of groups one by one."""
    for job in jobs:
        yield from job if job.is_group() else [job]


def tell_failures(failed: Iterable[Any], waiting: int, restored: Sequence[str] = ()) -> str:
    """Return a line for each failed job, ten at most, and what became of the others.

    Parameters
    ----------
    failed : iterable of jobs
        Jobs of Snakemake.
    waiting : int
        Number of jobs that were not run.
    restored : sequence of str
        Outputs that were put back as they had been.
    """
    jobs = sorted(list_single(failed), key=name_job)
    lines = [
        f"failed: {name_job(job)}: {find_reason(job.log[0]) if job.log else 'it has no log'}"
        + (f" (log: {job.log[0]})" if job.log else "")
        for job in jobs[:FAILURES]
    ]
    if len(jobs) > FAILURES:
        lines.append(f"failed: {len(jobs) - FAILURES} more jobs, see {jobs[FAILURES].log}")
    if restored:
        lines.insert(0, f"put back as before the run: {len(restored)} files of failed jobs")
    if waiting:
        lines.insert(0, f"not run: {waiting} jobs that come after")
    return "\n".join(lines)


def tell_table(csv_file: str | Path, figures: str | Path | None = None) -> str:
    """Return the table of an experiment in 100 columns at most, and where it and the figures are.

    Columns in which all rows are the same key are told in the first line; of the others as many
    are shown as the terminal has room for.
    """
    with Path(csv_file).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    markdown = Path(csv_file).with_suffix(".md")
    if not rows:
        return f"table: {markdown} (empty)"
    names = list(rows[0])
    shared = [key for key in KEYS if key in names and len({row[key] for row in rows}) == 1]
    if len(shared) == len([key for key in KEYS if key in names]):
        shared.remove("method")
    shown = [name for name in names if name not in shared]
    if FAILED in shown:  # what is not there comes before numbers that are
        shown.remove(FAILED)
        shown.insert(sum(name in KEYS for name in shown), FAILED)
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    while True:
        text = _draw(rows[:ROWS], shown)
        if len(shown) < 2 or max(map(len, text.splitlines())) <= width:
            break
        shown.pop()
    left_out = len(names) - len(shared) - len(shown)
    heading = ", ".join(f"{key} {rows[0][key]}" for key in shared)
    notes = [f"{left_out} more columns"] if left_out else []
    notes += [f"{len(rows) - ROWS} more rows"] if len(rows) > ROWS else []
    ending = f"table: {markdown}" + (f" ({', '.join(notes)})" if notes else "")
    if figures is not None:
        ending += f"\nfigures: {figures}"
    return "\n".join(part for part in (heading, text, ending) if part)


def _draw(rows: Sequence[dict[str, str]], names: Sequence[str]) -> str:
    headers = [_wrap(name) for name in names]
    cells = [[_shorten(row[name]) for name in names] for row in rows]
    return str(tabulate(cells, headers, tablefmt="simple", disable_numparse=True))


def _shorten(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _wrap(name: str, length: int = 14) -> str:
    """Return a heading of several words in several lines."""
    lines = [""]
    for word in name.split():
        if lines[-1] and len(lines[-1]) + len(word) >= length:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
