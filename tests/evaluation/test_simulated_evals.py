"""Evals of a tiny model on a device, simulated where there is none: scores are those of the CPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from simulated_cuda import IS_REAL, MARKS

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings

for package in ("sae_lens", "sae_bench", "sae_probes", "transformers"):
    pytest.importorskip(package)
pytestmark = MARKS

ROOT = Path(__file__).parents[2]
DATASETS = ["96_spam_is"]
EVALS: dict[str, dict[str, Any]] = {
    "core": {"datasets": DATASETS, "texts": 8, "context_length": 32, "batch_size": 4},
    "mdl": {"datasets": DATASETS, "texts": 8, "context_length": 32, "num_bins": [8], "tokens": 128},
    "sparse_probing_sae_probes": {
        **{"datasets": DATASETS, "rows": 200, "context_length": 16, "ks": [1]},
    },
}
# Those that draw nothing on the device: their scores are compared with the CPU's.
COMPARED = ("core", "mdl")


@pytest.fixture(scope="module")
def report(tiny_causal, tmp_path_factory) -> dict[str, Any]:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("evals")
    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    tokenizer.add_special_tokens({"pad_token": "[PAD]", "eos_token": "[SEP]"})
    model = folder / "lm"
    model.mkdir()
    for file in tiny_causal.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(model)
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(32, 16, generator=generator), dim=1)
    dictionary = Dictionary(atoms, torch.zeros(16), PursuitSettings(4, nonnegative=True))
    dictionary.save(folder / "pursuit" / "m32")
    job = {
        **{"evals": EVALS, "on_cpu": COMPARED, "report": str(folder / "report.json")},
        **{"model": str(model), "folder": str(folder)},
        "dictionary": str(folder / "pursuit" / "m32"),
    }
    paths = [str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")]
    driver = Path(__file__).with_name("simulated_evals_driver.py")
    subprocess.run(
        [sys.executable, str(driver), json.dumps(job)],
        **{"env": {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, "cwd": folder},
        check=True,
    )
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


@pytest.mark.parametrize("name", EVALS)
def test_each_eval_scores_on_the_device(name, report):
    assert "error" not in report[name], report[name]["error"]
    found = report[name]["cuda"]
    assert found
    assert all(math.isfinite(value) for value in found.values() if isinstance(value, float))
    if name in COMPARED:
        near = {"abs": 0.05} if IS_REAL else {"rel": 1e-3, "abs": 1e-4}
        assert found == pytest.approx(report[name]["cpu"], nan_ok=True, **near)
