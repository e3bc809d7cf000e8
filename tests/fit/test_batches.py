import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from rows import Rows
from simulated_cuda import MARKS, use_cuda

from dbksvd.fit.ksvd import staging
from dbksvd.fit.ksvd.batches import BatchReader
from dbksvd.fit.ksvd.schedule import Step

pytestmark = MARKS


class Watched(Rows):
    """Remembers who read what; fails where it is told to."""

    def __init__(self, x: torch.Tensor, bad: int | None = None) -> None:
        super().__init__(x)
        self.bad = bad
        self.reads: list[tuple[int, int]] = []
        self.threads: set[str] = set()

    def read(self, start: int, stop: int) -> torch.Tensor:
        self.reads.append((start, stop))
        self.threads.add(threading.current_thread().name.split("_")[0])
        if start == self.bad:
            raise OSError("shard is gone")
        return super().read(start, stop)


def make_reader(source: Watched, places: list[tuple[int, int]]) -> BatchReader:
    steps = [Step(0, (4,), 1, position, samples) for position, samples in places]
    return BatchReader(source, source.mean, 1, steps, torch.device("cpu"))


def test_batches_are_centred_scaled_and_read_once():
    source = Watched(torch.randn(10, 3, generator=torch.Generator().manual_seed(0)))
    places = [(0, 4), (0, 4), (4, 4), (8, 4), (12, 10), (22, 10)]
    reader = make_reader(source, places)
    centred = (source.x - source.mean) / 2
    for number, (position, samples) in enumerate(places):
        rows = torch.arange(position, position + samples) % 10
        assert torch.equal(reader.read(number), centred[rows])
    reader.close()
    # the last two are all samples, from the same row on: read once
    assert source.reads == [(0, 4), (4, 8), (8, 10), (0, 2), (2, 10), (0, 2)]
    assert source.threads == {"MainThread", "read-batch"}


def test_begins_in_the_middle():
    source = Watched(torch.arange(12.0).reshape(6, 2))
    reader = make_reader(source, [(0, 2), (2, 2), (4, 2)])
    assert torch.equal(reader.read(2), (source.x[4:] - source.mean) / 2)
    reader.close()
    assert source.reads == [(4, 6)]


def test_an_error_of_the_thread_reaches_the_fit():
    source = Watched(torch.ones(6, 2), bad=2)
    reader = make_reader(source, [(0, 2), (2, 2)])
    reader.read(0)
    with pytest.raises(OSError, match="shard is gone"):
        reader.read(1)
    reader.close()


def test_a_device_gets_the_bits_of_the_cpu_through_one_pinned_batch(monkeypatch):
    monkeypatch.setattr(staging, "BLOCK_BYTES", 1 << 7)  # 4 rows of 8 float32
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    places = [(0, 9), (0, 9), (9, 30), (39, 30), (69, 2), (71, 120)]
    steps = [Step(0, (4,), 1, position, samples) for position, samples in places]
    expected = make_reader(Watched(x), places)
    with use_cuda() as device:
        source = Watched(x)
        reader = BatchReader(source, source.mean, 1, steps, device)
        for number in range(len(places)):
            found = reader.read(number)
            assert found.device == device
            assert torch.equal(found.cpu(), expected.read(number))
        assert reader.staging is not None
        # of the largest batch, whatever came before it
        assert [block.shape for block in reader.staging.blocks] == [(4, 8)] * 30
        jumping = BatchReader(source, source.mean, 1, steps, device)
        jumping.read(0)
        assert torch.equal(jumping.read(3).cpu(), expected.read(3))
        for each in (reader, jumping):
            each.close()
    assert source.threads == {"MainThread", "read-batch"}
    expected.close()


def test_pinned_memory_of_a_million_rows_is_not_rounded_up():
    with use_cuda() as device:
        made = staging.Staging(2304, device)
    blocks = -(-(1 << 20) // made.rows_per_block)
    assert blocks * staging.BLOCK_BYTES < 1.01 * (1 << 20) * 2304 * 4


def test_a_batch_waits_for_the_copy_of_the_one_before():
    calls = []
    with use_cuda() as device:
        made = staging.Staging(3, device)
        made.copied = SimpleNamespace(
            synchronize=lambda: calls.append("wait"), record=lambda _stream: calls.append("copy")
        )
        for value in (1.0, 2.0):
            made.fill(partial(full, value), 5)
            calls.append("fill")
            assert torch.equal(made.send().cpu(), full(value, 0, 5))
    assert calls == ["wait", "fill", "copy"] * 2


def full(value: float, first: int, stop: int) -> torch.Tensor:
    return torch.full((stop - first, 3), value)
