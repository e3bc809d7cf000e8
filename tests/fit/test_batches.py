import threading

import pytest
import torch
from rows import Rows

from dbksvd.fit.ksvd.batches import BatchReader
from dbksvd.fit.ksvd.schedule import Step


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
