"""Every Triton kernel compiles for an H100 or H200, also where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
KERNELS = {
    "match",
    "match_orthogonally",
    "fit_codes",
    "sum_runs",
    "turn_atoms",
    "finish_samples",
    "subtract_codes",
}


@pytest.mark.slow
def test_each_kernel_compiles_to_machine_code_for_sm_90(tmp_path):
    # a process of its own: this one may hold the interpreter's kernels
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, str(ROOT / "tests/ops/compile_triton.py"), str(tmp_path / "found.json")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert {row["kernel"] for row in found} == KERNELS
    for row in found:
        assert row["ptx"], row
        assert row["cubin"] > 0, row
        # what a multiprocessor of Hopper has
        assert row["registers"] * 32 * row["num_warps"] <= 65536, row
        assert row["shared"] <= 227 * 1024, row
    on_chip = [row for row in found if row["kernel"] == "match" and row["constants"]["ON_CHIP"]]
    assert max(row["constants"]["BLOCK"] for row in on_chip) == 32768
    # the row of products itself must not have left the registers
    assert all(row["spills"] < 256 for row in on_chip), on_chip
