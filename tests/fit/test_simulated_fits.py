"""Every kind of fit on a device, simulated where there is none: it learns what the CPU learns."""

from __future__ import annotations

from dataclasses import replace
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
TRAINED = {"training_samples": 300, "batch_size": 50, "measure_every": 150}
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "ols, non-negative": ("dbksvd", {**BATCHED, "nonnegative": True, "heldout_every": 1}),
    "ols, signed": ("dbksvd", BATCHED),
    "mp, refitted": ("dbksvd", {**BATCHED, "pursuit": "mp", "refit": True}),
    "mean L0": ("dbksvd", {**BATCHED, "pursuit": "mp", "sparsity": "mean", "nonnegative": True}),
    "Matryoshka": ("dbksvd", {**BATCHED, "groups": [4, 8]}),
    "doubling": ("dbksvd", {**BATCHED, "init": "doubling"}),
    "bfloat16": ("dbksvd", {**BATCHED, "product_dtype": "bfloat16"}),
    "kernels": ("dbksvd", {"max_iter": 1, "polish_iter": 0, "batch_size": 20, "init": "random"}),
    "K-SVD": ("ksvd", {"max_iter": 1, "implementation": "batched"}),
    "ITDA": ("itda", {"nonnegative": True}),
    "grown": ("grown", {"settle_iter": 1, "starts": 4, "samples_per_atom": 10}),
    "PCA": ("pca", {}),
    "k-means": ("kmeans", {}),
    "random": ("random", {}),
    "mutual features": ("mfr", {"training_samples": 300, "batch_size": 50, "ramp_steps": 2}),
    **{
        name: ("sae", {"architecture": name, **TRAINED, **changes})
        for name, changes in {
            "standard": {},
            "gated": {},
            "jumprelu": {},
            "topk": {},
            "abstopk": {},
            "batchtopk": {},
            "matryoshka_batchtopk": {"groups": [4, 8]},
            "matching_pursuit": {},
            "switch": {"n_experts": 2},
            "kron": {"base": 2, "extension": 2},
        }.items()
    },
}
# Picks and updates of a kernel are rounded in another order.
LOOSE = {"kernels"}


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
        *(Rows(x[:300]), Rows(x[300:]), D if algorithm == "pca" else M, K, 0),
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
    tolerance = 1e-2 if kind in LOOSE else 1e-4
    if IS_REAL:  # rounding may decide a pick, and draws are others
        assert found.log[-1]["fve_heldout"] == pytest.approx(
            expected.log[-1]["fve_heldout"], abs=0.1
        )
        return
    torch.testing.assert_close(one.atoms, other.atoms, rtol=tolerance, atol=tolerance)
    assert found.log[-1]["fve_heldout"] == pytest.approx(
        expected.log[-1]["fve_heldout"], abs=tolerance
    )


@pytest.mark.parametrize("kind", ["ols, non-negative", "topk", "grown"])
def test_an_unfinished_fit_goes_on(kind, tmp_path):
    task = make_task(kind, tmp_path, "cuda:0")
    task = replace(task, settings=task.settings.model_copy(update={"checkpoint_seconds": 0}))
    with use_cuda():
        whole = run(task, kind)
        assert any(task.checkpoint.iterdir())
        again = run(task, kind)  # from the last checkpoint
    assert again.log[-1]["fve_heldout"] == whole.log[-1]["fve_heldout"]
    assert again.log[-1]["samples_seen"] == whole.log[-1]["samples_seen"]


def test_a_consensus_of_two_seeds(tmp_path):
    kind = "ols, non-negative"
    with use_cuda():
        for seed in (0, 1):
            task = make_task(kind, tmp_path / f"work{seed}", "cuda:0")
            run(replace(task, seed=seed), kind).save(tmp_path / str(seed))
        consensus = find_method("consensus")
        told = parse(consensus.settings, {"of": "other", "merge_cosine": 0.9})
        bases = (tmp_path / "0", tmp_path / "1")
        found = consensus.fit(replace(task, settings=told, bases=bases))
    assert found.log[-1]["fve_heldout"] > 0.3
