"""Fits on a device, simulated where there is none: they learn what the CPU learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rows import Rows
from simulated_cuda import IS_REAL, MARKS, leave_out_kernels, use_cuda

from dbksvd.base.settings import parse
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.fit.registry import find_method
from dbksvd.fit.task import FitResult, FitTask

pytestmark = MARKS

M, D, K = 12, 8, 2
SHORT = {"max_iter": 2, "polish_iter": 1, "batch_size": 150}
GROWN = {"starts": 8, "growth": 2, "round_iterations": 1, "settle_iter": 2, "bias": "mean"}
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "ols, non-negative": ("dbksvd", {**SHORT, "nonnegative": True, "heldout_every": 1}),
    "ols, signed": ("dbksvd", SHORT),
    "mp, refitted": ("dbksvd", {**SHORT, "pursuit": "mp", "refit": True}),
    "mean L0": ("dbksvd", {**SHORT, "pursuit": "mp", "sparsity": "mean", "nonnegative": True}),
    "Matryoshka groups": ("dbksvd", {**SHORT, "groups": [4, 8]}),
    "doubling": ("dbksvd", {**SHORT, "init": "doubling"}),
    "bfloat16": ("dbksvd", {**SHORT, "pursuit": "mp", "product_dtype": "bfloat16"}),
    "K-SVD": ("ksvd", {"max_iter": 1}),
    "grown": ("grown", GROWN),
    "itda": ("itda", {}),
    "k-means": ("kmeans", {}),
    "PCA": ("pca", {}),
    "random": ("random", {}),
    "identity": ("identity", {}),
}
# These have as many atoms as coordinates.
SQUARE = ("PCA", "identity")


@pytest.fixture(autouse=True)
def _batched():
    with leave_out_kernels():
        yield


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
        *(Rows(x[:300]), Rows(x[300:]), D if kind in SQUARE else M, K, 0),
        parse(find_method(algorithm).settings, {"algorithm": algorithm, **told}),
        *(torch.device(device), folder / "checkpoint"),
        metadata={"model_name": "m", "hook_name": "h"},
    )


def run(task: FitTask) -> FitResult:
    torch.manual_seed(0)
    return find_method(task.settings.algorithm).fit(task)


def check_same(found: FitResult, expected: FitResult, folder: Path) -> None:
    """Check what a device learned against what the CPU did; save both, as a fit's job does."""
    found.save(folder / "found")
    expected.save(folder / "expected")
    one, other = (load_dictionary(folder / name) for name in ("found", "expected"))
    if not IS_REAL:  # there rounding may decide a pick, and draws are others
        torch.testing.assert_close(one.atoms, other.atoms, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.bias, other.bias, rtol=1e-4, atol=1e-4)
    x = make_samples()[300:]
    errors = [float((x - made.decode(made.encode(x))).square().sum()) for made in (one, other)]
    total = float((x - x.mean(dim=0)).square().sum())
    assert errors[0] / total == pytest.approx(errors[1] / total, abs=0.1 if IS_REAL else 1e-4)


@pytest.mark.parametrize("kind", FITS)
def test_each_fit_is_that_of_the_cpu(kind, tmp_path):
    expected = run(make_task(kind, tmp_path / "cpu", "cpu"))
    with use_cuda():
        found = run(make_task(kind, tmp_path / "cuda", "cuda:0"))
        check_same(found, expected, tmp_path)


def test_a_consensus_is_that_of_the_cpu(tmp_path):
    bases = []
    for seed in range(3):
        task = replace(make_task("ols, signed", tmp_path / f"work{seed}", "cpu"), seed=seed)
        bases.append(tmp_path / f"base{seed}")
        run(task).save(bases[-1])
    settings = parse(find_method("consensus").settings, {"of": "other", "refit_iter": 1})

    def fit(device: str) -> FitResult:
        task = make_task("ols, signed", tmp_path / device[:4], device)
        return run(replace(task, settings=settings, bases=tuple(bases)))

    expected = fit("cpu")
    with use_cuda():
        check_same(fit("cuda:0"), expected, tmp_path)
