"""What a device holds and is asked at real sizes: the host code of CUDA on tensors without data."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dbksvd.fit.ksvd.replacement import find_duplicates

pytest.importorskip("triton")
from triton.runtime import interpreter

from dbksvd.ops.atom_update import cuda as update
from dbksvd.ops.pursuit import batched
from dbksvd.ops.pursuit import cuda as pursuit

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are not interpreted")
GIB = 1 << 30


class Meter(TorchDispatchMode):
    """Bytes that are alive and were at most, questions to the device, and launches of kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.seen: set[int] = set()
        self.questions: Counter[str] = Counter()
        self.launches = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function._schema.name
        if name == "aten::_local_scalar_dense":
            self.questions[name] += 1
            # nothing is out of range, everything is finite
            return False if args[0].dtype == torch.bool else 0
        found = function(*args, **(kwargs or {}))
        for part in tree_leaves(found):
            if isinstance(part, Tensor):
                self.add(part.untyped_storage())
        return found

    def add(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self.seen:
            self.seen.add(key)
            self.alive += storage.nbytes()
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self.free, key, storage.nbytes())

    def free(self, key: int, count: int) -> None:
        self.seen.discard(key)
        self.alive -= count


@contextmanager
def measure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
    meter = Meter()

    def launch(self: Any, *args: Any, **kwargs: Any) -> None:
        meter.launches += 1

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", launch)
    # tensors here say cpu
    monkeypatch.setitem(batched.SYSTEM_BYTES, "cpu", batched.SYSTEM_BYTES["cuda"])
    with FakeTensorMode(), meter:
        yield meter


def encode(x: Tensor, atoms: Tensor, k: int, **settings: Any) -> tuple[Tensor, Tensor]:
    options = {"nonnegative": False, "refit": True, "rtol": 0.0, **settings}
    return pursuit.encode(x, atoms, k, **options)


@pytest.mark.parametrize(
    ("n", "d", "m", "k", "settings"),
    [
        (1 << 17, 2304, 16384, 40, {"method": "mp"}),
        (1 << 17, 2304, 16384, 80, {"method": "ols", "nonnegative": True}),
        (1 << 17, 2304, 16384, 80, {"method": "omp"}),
        (1 << 19, 512, 512, 80, {"method": "ols"}),
        (1 << 18, 768, 1024, 150, {"method": "mp"}),
        (1 << 18, 768, 2048, 240, {"method": "mp"}),
    ],
)
def test_coding_takes_at_most_10_gib(monkeypatch, n, d, m, k, settings):
    with measure(monkeypatch) as meter:
        x, atoms = torch.empty(n, d), torch.empty(m, d)
        given = meter.alive
        indices, values = encode(x, atoms, k, **settings)
        assert indices.shape == values.shape == (n, k)
    assert GIB // 8 < meter.peak - given < 10 * GIB
    # one for each block and those of batched fits
    blocks = -(-n // min(pursuit.BLOCK_BYTES // (4 * m), batched.count_systems(k, x.device)))
    assert meter.questions.total() <= 2 * blocks


@pytest.mark.parametrize(("m", "limit"), [(16384, 22), (65536, 30)])
@pytest.mark.parametrize("method", ["mp", "ols"])
def test_an_iteration_over_a_million_samples(monkeypatch, method, m, limit):
    """Coding, residual, update and the search for duplicates: d 2,304, k 40."""
    n, d, k = 1 << 20, 2304, 40
    with measure(monkeypatch) as meter:
        x, atoms = torch.empty(n, d), torch.empty(m, d)
        indices, values = encode(x, atoms, k, method=method, nonnegative=True)
        asked = meter.questions.total()
        assert asked <= n * m * 4 // pursuit.BLOCK_BYTES
        launched = meter.launches
        assert launched == 2 * asked
        residual = update.compute_residual(x, indices, values, atoms)
        update.update_(residual, indices, values, atoms, torch.empty(m).long(), m // k, 3, True)
        find_duplicates(atoms, torch.empty(m).long(), 0.99, True)
    assert meter.peak < limit * GIB
    # every batch of the update is 2 · 3 + 1 launches
    batches = -(-m // (m // k))
    assert meter.launches - launched <= 7 * batches + 2
    assert meter.questions.total() - asked <= 8
