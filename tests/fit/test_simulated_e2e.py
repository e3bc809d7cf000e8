"""A model on a device, simulated where there is none: its rows, and training inside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from simulated_cuda import MARKS, leave_out_kernels, use_cuda

pytest.importorskip("transformers")

from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.sharding import write_shards
from dbksvd.activations.shards import ActivationShards
from dbksvd.base.settings import parse
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.fit.registry import find_method
from dbksvd.fit.task import FitResult, FitTask

pytestmark = MARKS

M, K = 24, 3
SITE = {"layer": 2, "context_length": 16, "batch_size": 4}
SITE |= {"n_train_tokens": 300, "n_heldout_tokens": 100}
TOLD = {"of": "other", "training_tokens": 240, "heldout_tokens": 60, "lr": 0.01, "batch_tokens": 60}


@pytest.fixture(autouse=True)
def _batched():
    with leave_out_kernels():
        yield


def extract(model: Path, text: Path, device: str, part: Path) -> dict:
    settings = {"model": {"name": str(model), "device": device}, **SITE}
    extract_slice(settings, 0, part, text=text)
    return settings


def read_rows(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return np.concatenate([file[split]["activations"][:] for split in ("train", "heldout")])


@pytest.mark.parametrize("kind", ["encoder", "causal"])
def test_rows_of_a_model_are_those_of_the_cpu(kind, request, text_folder, tmp_path):
    model = request.getfixturevalue(f"tiny_{kind}")
    extract(model, text_folder, "cpu", tmp_path / "cpu.h5")
    with use_cuda():
        extract(model, text_folder, "cuda", tmp_path / "cuda.h5")
    found, expected = (read_rows(tmp_path / f"{device}.h5") for device in ("cuda", "cpu"))
    assert len(found) == SITE["n_train_tokens"] + SITE["n_heldout_tokens"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("algorithm", ["e2e", "e2e_downstream"])
def test_training_inside_the_model_is_that_of_the_cpu(
    algorithm, tiny_causal, text_folder, tmp_path
):
    settings = extract(tiny_causal, text_folder, "cpu", tmp_path / "part.h5")
    write_shards([tmp_path / "part.h5"], {"rows_per_shard": 200}, tmp_path / "shards")
    train = ActivationShards.open(tmp_path / "shards")
    atoms = torch.nn.functional.normalize(train.read(0, M) - train.mean, dim=1)
    base = Dictionary(atoms, train.mean, PursuitSettings(K, method="ols"), train.describe())
    base.save(tmp_path / "base")
    method = find_method(algorithm)
    task = FitTask(
        *(train, ActivationShards.open(tmp_path / "shards", split="heldout"), M, K, 0),
        *(parse(method.settings, TOLD), torch.device("cpu"), tmp_path / "cpu"),
        metadata=train.describe(),
        bases=(tmp_path / "base",),
        extraction=settings,
        text=text_folder,
    )
    expected = method.fit(task)
    with use_cuda() as device:
        there = {**settings, "model": {**settings["model"], "device": "cuda"}}
        task = replace(task, extraction=there, device=device, checkpoint=tmp_path / "cuda")
        found: FitResult = method.fit(task)
        found.save(tmp_path / "found")
    for name in ("ce_loss", "fve_heldout"):
        assert found.log[-1][name] == pytest.approx(expected.log[-1][name], rel=1e-2), name
