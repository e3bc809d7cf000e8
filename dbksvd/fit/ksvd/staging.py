"""Rows on their way to a CUDA device: pinned memory that every batch uses again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dbksvd.base.shapes import Activations

# A power of two: torch rounds pinned memory up to one, and never gives it back.
BLOCK_BYTES = 1 << 26


class Staging:
    """Pinned blocks that hold one batch; a thread fills them while the device works.

    The blocks are as many as the largest batch needs, and hold no more than that and a block.

    Parameters
    ----------
    width : int
        Width d of a row.
    device : torch.device
        Where batches go.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.width, self.device = width, device
        self.rows_per_block = max(1, BLOCK_BYTES // (4 * width))
        self.blocks: list[Tensor] = []
        self.samples = 0
        self.copied = torch.cuda.Event()

    def fill(self, read: Callable[[int, int], Activations], samples: int) -> None:
        """Put a batch into the blocks, as soon as the device has taken the one before.

        Parameters
        ----------
        read : callable
            Returns the rows ``first … stop − 1`` of the batch, float32 on the CPU.
        samples : int
            Rows of the batch.
        """
        self.copied.synchronize()
        self.samples = samples
        for number, first in enumerate(range(0, samples, self.rows_per_block)):
            if number == len(self.blocks):
                shape = (self.rows_per_block, self.width)
                self.blocks.append(torch.empty(shape, dtype=torch.float32).pin_memory())
            stop = min(first + self.rows_per_block, samples)
            self.blocks[number][: stop - first] = read(first, stop)

    def send(self) -> Activations:
        """Return the batch on the device; the host does not wait for the copy."""
        shape = (self.samples, self.width)
        batch = torch.empty(shape, dtype=torch.float32, device=self.device)
        for rows, block in zip(batch.split(self.rows_per_block), self.blocks, strict=False):
            rows.copy_(block[: len(rows)], non_blocking=True)
        self.copied.record(torch.cuda.current_stream(self.device))
        return batch
