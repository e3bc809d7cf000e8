"""Items in order, worked on by threads, few of them held at a time."""

import threading

import pytest

from dbksvd.base.ahead import map_ahead


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_and_few_items_are_held(threads):
    drawn: list[int] = []

    def draw():
        for item in range(20):
            drawn.append(item)
            yield item

    for item, square in map_ahead(lambda item: item**2, draw(), threads):
        assert square == item**2
        assert len(drawn) <= item + threads + 1
    assert drawn == list(range(20))


def test_threads_work_side_by_side():
    both = threading.Barrier(2, timeout=30)
    assert [item for item, _ in map_ahead(lambda _: both.wait(), range(4), 2)] == [0, 1, 2, 3]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_reaches_the_caller(threads):
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda item: 1 / (3 - item), range(9), threads))
