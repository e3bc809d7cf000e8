"""Batches are shuffled, cover the data and can be read from any position."""

import pytest
import torch
from rows import Rows

from dbksvd.fit.sae.batches import BatchStream


def test_batches_visit_every_row_once_a_pass():
    rows = Rows(torch.arange(640.0).reshape(-1, 1))
    stream = BatchStream(rows, 32, seed=1, blocks=4)
    first = torch.cat([stream.read(index) for index in range(20)])
    second = torch.cat([stream.read(index) for index in range(20, 40)])
    assert torch.equal(first.sort(dim=0).values, rows.x)
    assert torch.equal(second.sort(dim=0).values, rows.x)
    assert not torch.equal(first, second)
    assert not torch.equal(first, rows.x)
    other = BatchStream(rows, 32, seed=2, blocks=4)
    assert not torch.equal(other.read(0), first[:32])


@pytest.mark.parametrize(("n", "batch_size", "blocks"), [(1000, 32, 4), (63, 32, 16), (97, 1, 7)])
def test_any_batch_is_the_same_read_alone_or_in_turn(n, batch_size, blocks):
    rows = Rows(torch.arange(float(n)).reshape(-1, 1))
    stream = BatchStream(rows, batch_size, seed=0, blocks=blocks)
    turn = [stream.read(index).clone() for index in range(3 * stream.n_batches)]
    for index in (0, 2 * stream.n_batches, len(turn) - 1, len(turn) // 2, 1):
        alone = BatchStream(rows, batch_size, seed=0, blocks=blocks).read(index)
        assert alone.shape == (batch_size, 1)
        assert torch.equal(alone, turn[index])
    for start in range(0, len(turn), stream.n_batches):
        seen = torch.cat(turn[start : start + stream.n_batches])
        assert len(seen.unique()) == stream.n_batches * batch_size


def test_a_batch_larger_than_the_data_is_the_data():
    rows = Rows(torch.zeros(5, 2))
    stream = BatchStream(rows, 32, seed=0)
    assert stream.batch_size == 5
    assert stream.read(3).shape == (5, 2)


def test_only_one_block_is_read_at_a_time():
    class Counted(Rows):
        most = 0

        def read(self, start, stop):
            self.most = max(self.most, stop - start)
            return super().read(start, stop)

    rows = Counted(torch.zeros(1000, 2))
    stream = BatchStream(rows, 10, seed=0, blocks=4)
    for index in range(200):
        stream.read(index)
    assert rows.most == 40
