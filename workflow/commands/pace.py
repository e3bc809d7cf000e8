"""The time that a run still takes, from how long its jobs took so far, rule by rule."""

from __future__ import annotations

from collections import Counter
from statistics import mean, median


class Pace:
    """Counts the jobs of each rule and the seconds that ended ones took.

    A fit takes a hundred times as long as a figure, so that jobs done of all tell little. A rule of
    which no job has ended yet counts as the median rule does.
    """

    def __init__(self) -> None:
        self._left: Counter[str] = Counter()
        self._running: dict[str, tuple[str, float]] = {}
        self._took: dict[str, list[float]] = {}
        self._began: float | None = None

    def plan(self, rule: str, count: int) -> None:
        """Take in how many jobs of a rule have not begun."""
        self._left[rule] = count

    def begin(self, job: str, rule: str, now: float) -> None:
        """Take in that a job has begun, for the first time or again, at a time in seconds."""
        self._began = now if self._began is None else self._began
        if job not in self._running:
            self._left[rule] -= 1
        self._running[job] = (rule, now)

    def end(self, job: str, now: float) -> None:
        """Take in that a job has ended; one that was never seen to begin is left out."""
        if job in self._running:
            rule, began = self._running.pop(job)
            self._took.setdefault(rule, []).append(now - began)

    def estimate(self, now: float) -> float | None:
        """Return the seconds that are left, or None as long as no job has ended."""
        if not self._took or self._began is None:
            return None
        means = {rule: mean(seconds) for rule, seconds in self._took.items()}
        usual = median(means.values())
        work = sum(max(count, 0) * means.get(rule, usual) for rule, count in self._left.items())
        spent = sum(sum(seconds) for seconds in self._took.values())
        for rule, began in self._running.values():
            work += max(means.get(rule, usual) - (now - began), 0.0)
            spent += now - began
        side_by_side = max(spent / max(now - self._began, 1e-9), 1e-9)
        return work / side_by_side
