"""SAEBench's MDAS beside its ravel: near 1 where each attribute has a subspace of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_mdas_finds_planted_subspaces_and_is_told_beside_each_dictionary(tmp_path: Path):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "evaluation" / "skyline_driver.py", tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["applicable"] == 1
    assert metrics["mdas_disentanglement_score"] > 0.9
    mean = (metrics["mdas_cause_score"] + metrics["mdas_isolation_score"]) / 2
    assert metrics["mdas_disentanglement_score"] == pytest.approx(mean)
    assert 0.5 < metrics["disentanglement_score"] <= 1
