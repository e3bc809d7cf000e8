"""One smaller try where a device runs out of memory, then a clear error."""

from __future__ import annotations

import logging
import weakref

import pytest
import torch

from dbksvd.ops.atom_update import batched as batched_update
from dbksvd.ops.atom_update.update import update_atoms_
from dbksvd.ops.memory import map_blocks
from dbksvd.ops.pursuit import batched
from dbksvd.ops.pursuit.encode import sparse_encode


def make_problem():
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(12, 6, generator=generator), dim=1)
    return torch.randn(40, 6, generator=generator), atoms


def fail_above(function, limit, calls):
    """Wrap a function so that memory runs out where its first argument has too many rows."""

    def wrapped(x, *args):
        calls.append(len(x))
        if len(x) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return function(x, *args)

    return wrapped


@pytest.mark.parametrize(
    ("n", "rows", "limit", "sizes"),
    [
        (10, 4, 4, [4, 4, 2]),
        (10, 4, 2, [4, 2, 2, 2, 2, 2]),
        (7, 100, 4, [7, 4, 3]),
        (1, 5, 1, [1]),
    ],
)
def test_blocks_are_halved_once_and_cover_all_rows(n, rows, limit, sizes, caplog):
    calls = []
    work = fail_above(lambda x: x, limit, calls)
    with caplog.at_level(logging.WARNING):
        parts = map_blocks(lambda block: work(torch.arange(n)[block]), n, rows, "n=10")
    assert torch.equal(torch.cat(parts), torch.arange(n))
    assert calls == sizes
    assert len(caplog.records) == (calls[0] > limit)


def test_a_failed_block_gives_its_memory_back_before_the_next_try():
    class Held:
        pass

    failed = []

    def work(block):
        held = Held()
        if block.stop - block.start > 2:
            failed.append(weakref.ref(held))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return failed[0]()

    assert map_blocks(work, 4, 4, "n=4") == [None, None]


def test_a_pursuit_goes_on_in_smaller_blocks(monkeypatch, caplog):
    x, atoms = make_problem()
    expected = sparse_encode(x, atoms, 3, implementation="batched")
    calls = []
    monkeypatch.setattr(batched, "match", fail_above(batched.match, 20, calls))
    with caplog.at_level(logging.WARNING):
        found = sparse_encode(x, atoms, 3, implementation="batched")
    assert calls == [40, 20, 20]
    assert "out of memory with n=40, m=12, d=6: going on in blocks of 20 rows" in caplog.text
    torch.testing.assert_close(found.values, expected.values)
    assert torch.equal(found.indices, expected.indices)


@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
def test_blocks_are_small_enough_for_the_systems(monkeypatch, method):
    x, atoms = make_problem()
    expected = sparse_encode(x, atoms, 3, method=method, implementation="batched")
    rows = []
    fit = batched.fit_block

    def watch(b, gram, support, *arguments):
        rows.append(len(support))
        return fit(b, gram, support, *arguments)

    monkeypatch.setattr(batched, "fit_block", watch)
    monkeypatch.setitem(batched.SYSTEM_BYTES, "cpu", 6 * 8 * 9 * 7)
    found = sparse_encode(x, atoms, 3, method=method, implementation="batched")
    assert rows == ([7, 7, 7, 7, 7, 5] if method == "mp" else [])
    torch.testing.assert_close(found.values, expected.values)
    sparse_encode(x, atoms, 3, refit=False, implementation="batched")


@pytest.mark.parametrize("k", [20, 80, 150, 240])
def test_systems_stay_below_their_bytes_and_the_solvers_limit(k):
    for device, limit in batched.SYSTEM_BYTES.items():
        count = batched.count_systems(k, torch.device(device))
        assert 1 <= count <= 65535
        assert 48 * k * k * count <= limit


def test_a_pursuit_that_never_fits_says_what_it_tried(monkeypatch):
    monkeypatch.setattr(batched, "match", fail_above(batched.match, 0, []))
    with pytest.raises(RuntimeError, match="out of memory with n=40, m=12, d=6, in blocks of 20"):
        sparse_encode(*make_problem(), 3, implementation="batched")


def test_an_update_goes_on_in_smaller_blocks_or_says_what_it_tried(monkeypatch, caplog):
    results = []
    multiply = batched_update.multiply_block
    for limit in (1000, 30):
        x, atoms = make_problem()
        codes = sparse_encode(x, atoms, 3)
        monkeypatch.setattr(batched_update, "multiply_block", fail_above(multiply, limit, []))
        options = {"atom_batch": 12, "power_iterations": 2, "implementation": "batched"}
        monkeypatch.setattr(batched_update, "GATHER_ELEMENTS", 6 * 60)
        results.append(update_atoms_(x, codes, atoms, **options))
    torch.testing.assert_close(results[0], results[1])
    assert "going on in blocks of 30 rows" in caplog.text
    monkeypatch.setattr(batched_update, "multiply_block", fail_above(multiply, 0, []))
    with pytest.raises(RuntimeError, match=r"out of memory with n=40, d=6, .* in blocks of 30"):
        update_atoms_(x, codes, atoms, **options)


def test_memory_that_runs_out_elsewhere_is_explained_too(monkeypatch):
    def fail(*_args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    x, atoms = make_problem()
    codes = sparse_encode(x, atoms, 3)
    monkeypatch.setattr(batched_update, "improve_atoms", fail)
    with pytest.raises(RuntimeError, match="out of memory with n=40, m=12, d=6 and atom_batch=4"):
        update_atoms_(x, codes, atoms, atom_batch=4, power_iterations=1, implementation="batched")
