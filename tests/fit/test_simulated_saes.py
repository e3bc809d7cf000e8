"""SAEs on a device, simulated where there is none: forward, backward, checkpoints, what is saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rows import Rows
from simulated_cuda import IS_REAL, MARKS, leave_out_kernels, use_cuda

from dbksvd.base.settings import parse
from dbksvd.fit.registry import find_method
from dbksvd.fit.task import FitResult, FitTask

pytest.importorskip("sae_lens")
pytestmark = MARKS

M, D, K = 16, 8, 2
SHORT = {"training_samples": 240, "batch_size": 40, "measure_every": 80, "dead_window": 60}
# Autocast rounds to bfloat16 on a real device; the simulated one does not know it.
SAE = {"algorithm": "sae", "autocast": False, **SHORT}
FITS: dict[str, dict[str, Any]] = {
    "topk": {},
    "abstopk": {},
    "batchtopk": {},
    "matryoshka_batchtopk": {"groups": [4, 12]},
    "standard": {},
    "jumprelu": {},
    "gated": {},
    "matching_pursuit": {},
    "switch": {"n_experts": 2},
    "kron": {"base": 2, "extension": 2},
    "llama_scope": {},
    "transcoder": {},
}
CUT_AT = 8


class Pairs(Rows):
    """Rows whose first half is an input, the second a target."""

    input_width = D


class CutOff(Rows):
    """Breaks off at a read in the middle of the steps."""

    reads = 0

    def read(self, start: int, stop: int) -> torch.Tensor:
        self.reads += 1
        if self.reads == CUT_AT:
            raise OSError("cable pulled")
        return super().read(start, stop)


@pytest.fixture(autouse=True)
def _batched():
    with leave_out_kernels():
        yield


def make_samples(width: int, n: int = 400) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(M, width, generator=generator), dim=1)
    picks = torch.rand(n, M, generator=generator).argsort(dim=1) < K
    return 2 * (picks * (1 + torch.rand(n, M, generator=generator))) @ atoms + 0.5


def make_task(told: dict[str, Any], folder: Path, device: str) -> FitTask:
    is_pair = told.get("architecture") == "transcoder"
    x = make_samples(2 * D if is_pair else D)
    rows = Pairs if is_pair else Rows
    return FitTask(
        *(rows(x[:300]), rows(x[300:]), M, K, 0),
        parse(find_method(told["algorithm"]).settings, told),
        *(torch.device(device), folder / "checkpoint"),
        metadata={"model_name": "m", "hook_name": "h", "hook_name_out": "o"},
    )


def run(task: FitTask) -> FitResult:
    return find_method(task.settings.algorithm).fit(task)


def check_same(found: FitResult, expected: FitResult, folder: Path) -> None:
    """Check logs and saved weights of a device against those of the CPU."""
    from safetensors.torch import load_file

    last = [result.log[-1] for result in (found, expected)]
    near = {"abs": 0.1} if IS_REAL else {"rel": 1e-3, "abs": 1e-4}  # a device draws other numbers
    for name in ("loss", "fve_heldout") if not IS_REAL else ("fve_heldout",):
        assert last[0][name] == pytest.approx(last[1][name], **near), name
    found.save(folder / "found")
    expected.save(folder / "expected")
    weights = [
        load_file(folder / name / "sae_weights.safetensors") for name in ("found", "expected")
    ]
    assert {name: value.shape for name, value in weights[0].items()} == {
        name: value.shape for name, value in weights[1].items()
    }
    if not IS_REAL:
        torch.testing.assert_close(weights[0], weights[1], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("architecture", FITS)
def test_each_sae_is_that_of_the_cpu(architecture, tmp_path):
    told = {**SAE, "architecture": architecture, **FITS[architecture]}
    expected = run(make_task(told, tmp_path / "cpu", "cpu"))
    with use_cuda():
        found = run(make_task(told, tmp_path / "cuda", "cuda:0"))
        check_same(found, expected, tmp_path)


def test_mutual_feature_regularisation_is_that_of_the_cpu(tmp_path):
    told = {"algorithm": "mfr", "training_samples": 240, "batch_size": 40, "match_every": 2}
    told |= {"ramp_steps": 2}
    expected = run(make_task(told, tmp_path / "cpu", "cpu"))
    with use_cuda():
        found = run(make_task(told, tmp_path / "cuda", "cuda:0"))
        check_same(found, expected, tmp_path)


def test_autocast_trains(tmp_path):
    told = {**SAE, "architecture": "topk", "autocast": True}
    with use_cuda():
        found = run(make_task(told, tmp_path, "cuda:0"))
        found.save(tmp_path / "sae")
    assert found.summary["precision"] == "bfloat16 autocast"
    assert found.log[-1]["fve_heldout"] > found.log[0]["fve_heldout"]


def test_a_training_goes_on_from_its_checkpoint(tmp_path):
    told = {**SAE, "architecture": "batchtopk", "checkpoint_seconds": 0}
    told |= {"training_samples": 1600, "measure_every": 400}
    with use_cuda():
        whole = run(make_task(told, tmp_path / "whole", "cuda:0"))
        task = make_task(told, tmp_path / "cut", "cuda:0")
        with pytest.raises(OSError, match="cable pulled"):
            run(replace(task, train=CutOff(task.train.x)))
        assert any(task.checkpoint.iterdir())
        resumed = run(task)
        logs = [[row["fve_heldout"] for row in result.log] for result in (resumed, whole)]
        assert logs[0] == pytest.approx(logs[1], abs=1e-6)
