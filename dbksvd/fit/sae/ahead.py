"""Batches of a training on a CUDA device, read while the steps before them compute.

So the seconds of an SAE hold no waiting for a disk, as those of DB-KSVD do not.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from dbksvd.fit.sae.batches import BatchStream

# Batches that are read ahead at most, whatever the block.
MOST_AHEAD = 64


class BatchesAhead:
    """Batches in order, on the device of a training.

    Where that is CUDA, a thread reads a block's worth of batches ahead, into pinned memory: a new
    block is read while the one before is worked on. On the CPU batches are read when they are due.

    Parameters
    ----------
    batches : BatchStream
        Where batches come from. Between the first :meth:`read` and :meth:`close` no one else reads
        it.
    device : torch.device
        Where they go.
    n_steps : int
        Batches of the training; none behind them is read.
    rows : tuple of int, optional
        First row and the row after the last one that are read of each batch; all by default.
    """

    def __init__(
        self,
        batches: BatchStream,
        device: torch.device,
        n_steps: int,
        rows: tuple[int, int] | None = None,
    ) -> None:
        self.batches, self.device, self.n_steps = batches, device, n_steps
        self.rows = slice(*(rows or (0, batches.batch_size)))
        self.depth = min(batches.blocks, MOST_AHEAD)
        self.thread: ThreadPoolExecutor | None = None
        self.ahead: deque[tuple[int, Future[Tensor]]] = deque()

    def read(self, index: int) -> Tensor:
        """Return the rows of batch `index` on the device; the next ones are being read."""
        if self.device.type != "cuda":
            return self.batches.read(index)[self.rows]
        if self.thread is None:
            self.thread = ThreadPoolExecutor(1, thread_name_prefix="read-batch")
        if self.ahead and self.ahead[0][0] != index:
            self.ahead.clear()
        first = self.ahead[-1][0] + 1 if self.ahead else index
        for number in range(first, max(index, min(index + self.depth, self.n_steps - 1)) + 1):
            self.ahead.append((number, self.thread.submit(self._load, number)))
        found = self.ahead.popleft()[1].result()
        return found.to(self.device, non_blocking=True)

    def close(self) -> None:
        """Wait for a read that is under way, and let the thread end."""
        if self.thread is not None:
            self.thread.shutdown(wait=True, cancel_futures=True)
        self.thread = None
        self.ahead.clear()

    def _load(self, index: int) -> Tensor:
        return self.batches.read(index)[self.rows].pin_memory()
