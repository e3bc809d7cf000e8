"""Every Triton kernel compiles for an A100 and for an H100 or H200, also where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


# Bytes of spills a thread, by the largest system of a kernel and by sign; others have no system.
SPILLS = {
    ("fit_codes", 64, False): 128,
    ("fit_codes", 64, True): 384,
    ("fit_codes", 128, False): 384,
    ("fit_codes", 128, True): 2048,
    ("match_orthogonally", 64, False): 128,
    ("match_orthogonally", 64, True): 768,
    ("match_orthogonally", 128, False): 512,
    ("match_orthogonally", 128, True): 3072,
}
# Kilobytes of shared memory that a program may have.
SHARED = {80: 163, 90: 227}


def find_limit(row: dict[str, Any]) -> int:
    """Return the bytes that a thread of a kernel may spill."""
    constants = row["constants"]
    size = 64 if constants.get("BLOCK_K", 1) <= 64 else 128
    return SPILLS.get((row["kernel"], size, constants.get("NONNEGATIVE")), 256)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_each_kernel_compiles_to_machine_code(capability, tmp_path):
    # a process of its own: this one may hold the interpreter's kernels
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    script, path = str(ROOT / "tests/ops/compile_triton.py"), tmp_path / "found.json"
    result = subprocess.run(
        [sys.executable, script, str(capability), str(path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(path.read_text())
    assert {row["kernel"] for row in found} == KERNELS
    for row in found:
        assert row["ptx"], row
        assert row["cubin"] > 0, row
        assert row["registers"] * 32 * row["num_warps"] <= 65536, row
        assert row["shared"] <= SHARED[capability] * 1024, row
        assert row["spills"] < find_limit(row), row
    # two programs of a signed omp or ols to a multiprocessor
    signed = [
        row
        for row in found
        if row["kernel"] == "match_orthogonally"
        and not row["constants"]["NONNEGATIVE"]
        and row["constants"]["BLOCK_K"] <= 64
    ]
    assert {row["constants"]["RECURSIVE"] for row in signed} == {False, True}
    assert all(row["registers"] * 32 * row["num_warps"] <= 32768 for row in signed), signed
    on_chip = [row for row in found if row["kernel"] == "match" and row["constants"]["ON_CHIP"]]
    assert max(row["constants"]["BLOCK"] for row in on_chip) == {80: 16384, 90: 32768}[capability]
