"""Batches are shuffled, cover the data and can be read from any position."""

import threading

import pytest
import torch
from rows import Rows
from simulated_cuda import MARKS, use_cuda

from dbksvd.fit.sae.ahead import BatchesAhead
from dbksvd.fit.sae.batches import BatchStream

pytestmark = MARKS


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


class Watched(Rows):
    """Remembers which thread read what."""

    def __init__(self, x):
        super().__init__(x)
        self.reads = []

    def read(self, start, stop):
        self.reads.append((threading.current_thread().name.split("_")[0], start))
        return super().read(start, stop)


def test_a_device_gets_the_batches_of_the_cpu_and_the_next_block_is_read_meanwhile():
    x = torch.arange(140.0).reshape(-1, 1)
    expected = BatchStream(Rows(x), 10, seed=0, blocks=4)
    rows = Watched(x)
    with use_cuda() as device:
        ahead = BatchesAhead(BatchStream(rows, 10, seed=0, blocks=4), device, 20, (3, 8))
        for index in (*range(3), 8, 9, *range(2, 20)):
            found = ahead.read(index)
            assert found.device == device
            assert torch.equal(found.cpu(), expected.read(index)[3:8])
            if index == 0:
                assert [number for number, _ in ahead.ahead] == [1, 2, 3, 4]
                ahead.ahead[-1][1].result()
                assert len(rows.reads) == 2  # the last of them is in the next block
        assert not ahead.ahead  # nothing behind the last batch is read
        ahead.close()
    assert {thread for thread, _ in rows.reads} == {"read-batch"}


def test_on_the_cpu_batches_are_read_when_they_are_due():
    rows = Watched(torch.arange(40.0).reshape(-1, 1))
    ahead = BatchesAhead(BatchStream(rows, 10, seed=0, blocks=1), torch.device("cpu"), 9)
    for count in range(1, 4):
        assert ahead.read(count).shape == (10, 1)
        assert [thread for thread, _ in rows.reads] == ["MainThread"] * count
    ahead.close()


def test_an_error_of_a_read_ahead_comes_with_its_batch():
    class Broken(Rows):
        def read(self, start, stop):
            if start >= 20:
                raise OSError("shard is gone")
            return super().read(start, stop)

    stream = BatchStream(Broken(torch.zeros(40, 1)), 10, seed=0, blocks=1)
    failing = next(i for i in range(4) if _starts_at(i) >= 20)
    with use_cuda() as device:
        ahead = BatchesAhead(stream, device, 4)
        for index in range(failing):
            ahead.read(index)
        with pytest.raises(OSError, match="shard is gone"):
            ahead.read(failing)
        ahead.close()


def _starts_at(index):
    rows = Watched(torch.zeros(40, 1))
    BatchStream(rows, 10, seed=0, blocks=1).read(index)
    return rows.reads[0][1]
