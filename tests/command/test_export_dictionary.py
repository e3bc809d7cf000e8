"""`dbksvd export` of a dictionary writes an export, or one line that says why not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings

ROOT = Path(__file__).parents[2]


def export(folder: Path, form: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dbksvd.command.main", "export", "--format", form]
    command += [str(folder / "dictionary"), str(folder / "export")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "settings", "architecture", "latents"),
    [
        ("sign-split", PursuitSettings(3), "dbksvd", 16),
        (
            "matching-pursuit",
            PursuitSettings(2, nonnegative=True, refit=False),
            "matching_pursuit",
            8,
        ),
    ],
)
def test_writes_an_export(tmp_path, form, settings, architecture, latents):
    Dictionary(torch.eye(8), torch.zeros(8), settings).save(tmp_path / "dictionary")
    done = export(tmp_path, form)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "export/cfg.json").read_text())
    assert (config["architecture"], config["d_sae"]) == (architecture, latents)
    assert (tmp_path / "export/sae_weights.safetensors").stat().st_size > 4 * latents * 8


@pytest.mark.slow
def test_refusal_is_one_line(tmp_path):
    Dictionary(torch.eye(8), torch.zeros(8), PursuitSettings(3)).save(tmp_path / "dictionary")
    done = export(tmp_path, "matching-pursuit")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: dictionary: expected nonnegative=True")
    assert not (tmp_path / "export").exists()
