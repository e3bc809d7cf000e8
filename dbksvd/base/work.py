"""Work of a job, counted before it is run: operations, bytes, seconds of the host."""

from __future__ import annotations

from dataclasses import dataclass

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Work:
    """Work of one job.

    Parameters
    ----------
    model, products, steps : float
        Floating-point operations in the language model; in large matrix products; and in pursuit
        steps and rank-1 updates, which wait for memory rather than compute.
    host_seconds : float
        Seconds of one CPU core that no accelerator takes over.
    memory, disk : float
        Bytes held at the same time, and bytes left behind.
    """

    model: float = 0.0
    products: float = 0.0
    steps: float = 0.0
    host_seconds: float = 0.0
    memory: float = 0.0
    disk: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Return both, one after the other: memory is the greater one's."""
        return Work(
            self.model + other.model,
            self.products + other.products,
            self.steps + other.steps,
            self.host_seconds + other.host_seconds,
            max(self.memory, other.memory),
            self.disk + other.disk,
        )

    def times(self, count: float) -> Work:
        """Return the work done `count` times over: operations only."""
        return Work(self.model * count, self.products * count, self.steps * count)
