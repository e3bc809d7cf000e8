"""Fits of DB-KSVD on a device, simulated where there is none: they learn what the CPU learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rows import Rows
from simulated_cuda import use_cuda

from dbksvd.base.settings import parse
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.fit.registry import find_method
from dbksvd.fit.task import FitResult, FitTask

IS_REAL = torch.cuda.is_available()
pytestmark = [
    *([pytest.mark.cuda] if IS_REAL else []),
    # of Triton's interpreter
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
]

M, D, K = 12, 8, 2
BATCHED = {"implementation": "batched", "max_iter": 2, "polish_iter": 1, "batch_size": 150}
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "ols, non-negative": ("dbksvd", {**BATCHED, "nonnegative": True, "heldout_every": 1}),
    "ols, signed": ("dbksvd", BATCHED),
    "mp, refitted": ("dbksvd", {**BATCHED, "pursuit": "mp", "refit": True}),
    "mean L0": ("dbksvd", {**BATCHED, "pursuit": "mp", "sparsity": "mean", "nonnegative": True}),
}


def make_samples(n: int = 360) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(M, D, generator=generator), dim=1)
    picks = torch.rand(n, M, generator=generator).argsort(dim=1) < K
    values = 1 + torch.rand(n, M, generator=generator)
    return (picks * values) @ atoms + 0.01 * torch.randn(n, D, generator=generator) + 0.3


def make_task(kind: str, folder: Path, device: str) -> FitTask:
    algorithm, told = FITS[kind]
    x = make_samples()
    return FitTask(
        *(Rows(x[:300]), Rows(x[300:]), M, K, 0),
        parse(find_method(algorithm).settings, {"algorithm": algorithm, **told}),
        *(torch.device(device), folder / "checkpoint"),
        metadata={"model_name": "m", "hook_name": "h"},
    )


def run(task: FitTask, kind: str) -> FitResult:
    torch.manual_seed(0)
    return find_method(FITS[kind][0]).fit(task)


@pytest.mark.parametrize("kind", FITS)
def test_each_fit_is_that_of_the_cpu(kind, tmp_path):
    expected = run(make_task(kind, tmp_path / "cpu", "cpu"), kind)
    with use_cuda():
        found = run(make_task(kind, tmp_path / "cuda", "cuda:0"), kind)
        found.save(tmp_path / "found")
    expected.save(tmp_path / "expected")
    one, other = (load_dictionary(tmp_path / name) for name in ("found", "expected"))
    if IS_REAL:  # rounding may decide a pick, and draws are others
        assert found.log[-1]["fve_heldout"] == pytest.approx(
            expected.log[-1]["fve_heldout"], abs=0.1
        )
        return
    torch.testing.assert_close(one.atoms, other.atoms, rtol=1e-4, atol=1e-4)
    assert found.log[-1]["fve_heldout"] == pytest.approx(expected.log[-1]["fve_heldout"], abs=1e-4)
