"""The benchmark for a borrowed GPU: parts fail alone, and predictions are judged."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import run_gpu, run_whole
from benchmarks.run_gpu import PREDICTIONS, Part, judge, list_parts, main, run_part


def run_python(code: str, limit: float = 60) -> str:
    outcome: str = run_part(Part("a part", limit, [sys.executable, "-c", code]))["outcome"]
    return outcome


def test_parts_end_well_or_not_and_leave_the_others():
    assert run_python("pass") == "passed"
    assert run_python("raise SystemExit(3)") == "failed with status 3"
    assert run_python("raise SystemExit(5)") == "no tests"
    assert run_python("raise SystemExit(77)") == "left out: a package is missing"
    assert run_python("import time; time.sleep(60)", limit=0.5) == "stopped at its limit"


def test_all_parts_take_at_most_eight_minutes(tmp_path):
    parts = list_parts(tmp_path, "cuda", quick=False)
    assert sum(part.limit for part in parts) <= 480
    names = {part.name for part in parts}
    assert set(run_whole.PARTS) < names
    assert len(names) == len(parts)


def test_a_table_is_written_after_each_part(tmp_path, monkeypatch, capsys):
    parts = [Part(name, 60, [sys.executable, "-c", code]) for name, code in
             (("one", "pass"), ("two", "raise SystemExit(2)"), ("three", "pass"))]  # fmt: skip
    monkeypatch.setattr(run_gpu, "list_parts", lambda *_: parts)
    main(["--output", str(tmp_path), "--parts", "one", "two"])
    rows = list(csv.DictReader((tmp_path / "gpu-parts.csv").read_text().splitlines()))
    assert [(row["part"], row["outcome"]) for row in rows] == [
        ("one", "passed"),
        ("two", "failed with status 2"),
    ]
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("not measured: ")
    assert len([line for line in printed if line.startswith("not measured")]) == len(PREDICTIONS)


@pytest.mark.parametrize(
    ("value", "verdict"), [(1.0, "held"), (0.1, "better than predicted"), (9.0, "fell short")]
)
def test_predictions_are_judged(value, verdict, tmp_path):
    columns = {"operation": "ols", "implementation": "cuda", "d": 2304, "m": 16384, "k": 40}
    with Path(tmp_path / "kernels-cuda.csv").open("w") as stream:
        writer = csv.DictWriter(stream, [*columns, "median_s"])
        writer.writeheader()
        writer.writerow({**columns, "median_s": value})
    (line,) = [line for line in judge(tmp_path, "cuda") if line.startswith(verdict)]
    assert "ols, signed" in line
    assert f"{value:.4g}, predicted 0.8 to 1.7" in line


@pytest.mark.parametrize("part", run_whole.PARTS)
def test_whole_stages_at_a_toy_size(part, tmp_path):
    command = [sys.executable, run_whole.__file__, "--output", str(tmp_path), "--part", part]
    environment = {**os.environ, "PYTHONPATH": str(run_whole.ROOT)}
    subprocess.run([*command, "--quick"], check=True, env=environment)
    lines = (tmp_path / f"whole-{part}-cpu.csv").read_text().splitlines()
    (row,) = csv.DictReader(lines)
    assert row["part"] == part
    assert float(row["seconds"]) > 0
    if part == "extraction":
        assert int(row["n"]) == 1024
    elif part == "ranks":
        assert float(row["difference"]) < 1e-5
    else:
        assert float(row["fit_s"]) <= float(row["seconds"])
        assert 0 < float(row["fve"]) < 1
