"""Everything worth knowing on a borrowed GPU, part by part, in under eight minutes.

Each part is a process with a time limit and saves its tables itself; one that fails leaves the
others. ``gpu-parts.csv`` is written after each. The last lines say which predictions of NOTES.md
held.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.print_targets import read_rows, select
from benchmarks.run_whole import LEFT_OUT
from benchmarks.timing import write_table

TESTS = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "cuda"]


@dataclass(frozen=True)
class Part:
    """A process: its name, the most seconds it may take, its command."""

    name: str
    limit: float
    command: list[str]


@dataclass(frozen=True)
class Prediction:
    """A column of a row of a table, and the bounds in which NOTES.md expects it."""

    what: str
    table: str
    row: dict[str, Any]
    column: str
    least: float
    most: float


SHAPE = {"d": 2304, "m": 16384, "k": 40}
PREDICTIONS = (
    Prediction(
        *("one pass, mp + refit, float32: seconds", "pass-{}.csv"),
        *({"stage": "pass", "mode": "float32", **SHAPE}, "median_s", 0, 4.2),
    ),
    Prediction(
        *("ols, signed, 65,536 samples: seconds (16 of them make a pass)", "kernels-{}.csv"),
        *({"operation": "ols", "implementation": "cuda", **SHAPE}, "median_s", 0.8, 1.7),
    ),
    Prediction(
        *("ols, non-negative, 65,536 samples: seconds", "kernels-{}.csv"),
        *({"operation": "ols, non-negative", "implementation": "cuda", **SHAPE}, "median_s"),
        *(0.8, 2.2),
    ),
    Prediction(
        *("DB-KSVD, one iteration of non-negative ols: seconds", "whole-dbksvd-{}.csv"),
        *({"part": "dbksvd", **SHAPE}, "seconds", 0, 75),
    ),
    Prediction(
        *("TopK SAE, all samples once: seconds", "whole-topk-{}.csv"),
        *({"part": "topk", **SHAPE}, "seconds", 0, 25),
    ),
    Prediction(
        *("extraction, a million tokens of 135 M weights: seconds", "whole-extraction-{}.csv"),
        *({"part": "extraction"}, "seconds", 0, 15),
    ),
    Prediction(
        *("two ranks on one device: largest difference of an atom", "whole-ranks-{}.csv"),
        *({"part": "ranks"}, "difference", 0, 1e-3),
    ),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--parts", nargs="+", help="names of some parts; all by default")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for part in list_parts(options.output, options.device, options.quick):
        if options.parts and part.name not in options.parts:
            continue
        rows.append(run_part(part))
        write_table(rows, options.output / "gpu-parts.csv", {})
    for row in rows:
        print(f"{row['part']}: {row['outcome']} in {row['seconds']:.0f} s")
    for line in judge(options.output, options.device):
        print(line)


def list_parts(output: Path, device: str, quick: bool) -> list[Part]:
    """Return all parts, the most telling first: a machine may be taken back."""
    folder = Path(__file__).parent
    stages = sorted(
        str(path.relative_to(folder.parent))
        for path in folder.parent.glob("tests/*/test_simulated_*.py")
        if path.parent.name != "ops"  # with the kernels' tests
    )
    given = ["--output", str(output), "--device", device, *(["--quick"] if quick else [])]

    def benchmark(script: str, *more: str) -> list[str]:
        return [sys.executable, str(folder / script), *given, *more]

    return [
        Part("kernel tests", 90, [*TESTS, "tests/ops"]),
        Part("kernels", 130, benchmark("run_kernels.py", "--repeats", "3", "--pass-seconds", "8")),
        Part("stage tests", 75, [*TESTS, *stages]),
        Part("dbksvd", 90, benchmark("run_whole.py", "--part", "dbksvd")),
        Part("topk", 45, benchmark("run_whole.py", "--part", "topk")),
        Part("extraction", 25, benchmark("run_whole.py", "--part", "extraction")),
        Part("ranks", 25, benchmark("run_whole.py", "--part", "ranks")),
    ]


def run_part(part: Part) -> dict[str, Any]:
    """Run a part to its end or limit; return its row."""
    print(f"--- {part.name}, at most {part.limit:.0f} s", flush=True)
    started = time.perf_counter()
    try:
        status = subprocess.run(part.command, timeout=part.limit, check=False).returncode
        # pytest: 5 is "no test was selected", as where there is no device
        outcomes = {0: "passed", 5: "no tests", LEFT_OUT: "left out: a package is missing"}
        outcome = outcomes.get(status, f"failed with status {status}")
    except subprocess.TimeoutExpired:
        outcome = "stopped at its limit"
    seconds = time.perf_counter() - started
    return {"part": part.name, "outcome": outcome, "seconds": seconds, "limit_s": part.limit}


def judge(output: Path, device: str) -> Iterator[str]:
    """Yield a line for each prediction: what was measured, and whether it held."""
    for prediction in PREDICTIONS:
        row = select(read_rows(output / prediction.table.format(device)), **prediction.row)
        if row is None or not row.get(prediction.column):
            yield f"not measured: {prediction.what}"
            continue
        value = float(row[prediction.column])
        if prediction.least <= value <= prediction.most:
            verdict = "held"
        else:
            verdict = "better than predicted" if value < prediction.least else "fell short"
        bounds = f"predicted {prediction.least:g} to {prediction.most:g}"
        yield f"{verdict}: {prediction.what}: {value:.4g}, {bounds}"


if __name__ == "__main__":
    main()
