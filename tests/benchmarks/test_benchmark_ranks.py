"""The benchmark of several ranks, on one."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import run_ranks
from dbksvd.ops.ranks import ALONE, Ranks


@pytest.mark.parametrize("operation", run_ranks.OPERATIONS)
def test_a_point_of_one_rank_sends_nothing(operation: str, monkeypatch):
    size = asdict(run_ranks.QUICK_SIZES[0])
    row = run_ranks.measure_point(ALONE, operation=operation, repeats=2, size=size)
    assert (row["n"], row["m"], row["ranks"], row["repeats"]) == (64, 16, 1, 2)
    assert row["median_s"] > 0
    assert row["cpu_s"] > 0
    assert (row["sums"], row["summed_bytes"], row["difference"]) == (0, 0, 0)


def test_a_wrong_result_is_not_timed(monkeypatch):
    """Two ranks that hear nothing of each other: each fits its half of the samples."""
    deaf = Ranks(0, 2)
    monkeypatch.setattr(deaf, "_reduce_", lambda x, _operation: x)
    size = asdict(run_ranks.QUICK_SIZES[0])
    with pytest.raises(SystemExit, match="error: DBKSVD iteration differs from one process by"):
        run_ranks.measure_point(deaf, operation=run_ranks.OPERATIONS[0], repeats=1, size=size)


def test_efficiency_is_against_the_first_point(tmp_path: Path, monkeypatch):
    row = {"sums": 3, "summed_bytes": 5, "difference": 0.0, "n": 1, "m": 1, "k": 1, "d": 1}
    seconds, cpu_seconds = {1: 0.5, 2: 0.8}, {1: 0.4, 2: 0.5}

    def measure(operation, size, ranks, options):
        return row | {
            "operation": operation,
            "ranks": ranks,
            "median_s": seconds[ranks],
            "cpu_s": cpu_seconds[ranks],
        }

    monkeypatch.setattr(run_ranks, "run_point", measure)
    run_ranks.main(["--quick", "--output", str(tmp_path)])
    with (tmp_path / "ranks.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [
        (row["operation"], row["ranks"], float(row["efficiency"]), float(row["cpu_efficiency"]))
        for row in rows
    ]
    assert found == [
        (name, ranks, pytest.approx(value), pytest.approx(cpu_value))
        for name in run_ranks.OPERATIONS
        for ranks, value, cpu_value in (("1", 1.0, 1.0), ("2", 0.625, 0.8))
    ]


def test_a_rank_prints_json(capsys):
    size = asdict(run_ranks.QUICK_SIZES[0])
    point = {"operation": run_ranks.OPERATIONS[0], "repeats": 1, "size": size}
    run_ranks.main(["--point", json.dumps(point), "--threads", "1"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["repeats"] == 1
