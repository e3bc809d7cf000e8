"""Training batches by number: any batch can be read without reading those before it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dbksvd.activations.shards import ActivationShards


class BatchStream:
    """An endless stream of shuffled batches; ``read(i)`` is always the same rows.

    Rows are read in blocks of ``blocks · batch_size``. Each pass visits the blocks in a new order
    and shuffles the rows inside a block; the shards are globally shuffled already. Rows that do not
    fill a batch at the end of the last block are left out, other ones in every pass.

    Parameters
    ----------
    shards : ActivationShards
        Where rows come from; one block of them is in memory.
    batch_size : int
        Rows of a batch, at most all rows.
    seed : int
        Seed of every order.
    blocks : int
        Batches in a block; where `shards` is made of blocks itself (``block_rows``), as many as one
        of those has.
    """

    def __init__(
        self, shards: ActivationShards, batch_size: int, *, seed: int, blocks: int = 16
    ) -> None:
        self.shards, self.seed = shards, seed
        self.batch_size = min(batch_size, len(shards))
        block_rows = getattr(shards, "block_rows", blocks * self.batch_size)
        self.blocks = max(1, block_rows // self.batch_size)
        self.n_batches = len(shards) // self.batch_size
        self._cached: tuple[tuple[int, int] | None, Tensor] = (
            None,
            torch.empty(0, dtype=torch.float32),
        )

    def read(self, index: int) -> Tensor:
        """Return batch `index` (from 0, without end), float32 of shape (batch_size, d)."""
        turn, place = divmod(index, self.n_batches)
        starts = np.arange(0, self.n_batches, self.blocks)
        order = np.random.default_rng([self.seed, turn]).permutation(starts)
        ends = np.cumsum(np.minimum(self.blocks, self.n_batches - order))
        position = int(np.searchsorted(ends, place, side="right"))
        start = int(order[position])
        batch = place - int(ends[position - 1]) if position else place
        rows = self._read_block(turn, start)
        return rows[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _read_block(self, turn: int, start: int) -> Tensor:
        key, rows = self._cached
        if key != (turn, start):
            first, last = start * self.batch_size, (start + self.blocks) * self.batch_size
            if start + self.blocks >= self.n_batches:
                last = len(self.shards)
            rows = self.shards.read(first, last)
            order = np.random.default_rng([self.seed, turn, start]).permutation(len(rows))
            rows = rows[torch.from_numpy(order)]
            self._cached = ((turn, start), rows)
        return rows
