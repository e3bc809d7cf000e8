"""Weak scaling: one fit on several processes of this machine, with as many samples for each.

Every point runs under torchrun, ranks on threads of their own. Before it is timed, its result is
checked against that of one process; bytes are those that the ranks' sums counted themselves.
A rank that waits for another takes no CPU time, so ``cpu_s`` says how much of a loss is work, which
the ranks do, and how much is waiting: for each other, or for whatever else the machine does, which
``load`` tells.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import MemoryActivations, draw_data
from benchmarks.timing import describe_machine, limit_threads, print_table, summarise, write_table
from dbksvd.base.settings import parse
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.fit.registry import find_method
from dbksvd.fit.sae.train import SavableSAE
from dbksvd.fit.task import FitTask
from dbksvd.ops.ranks import ALONE, Ranks, join_ranks

ROOT = Path(__file__).parents[1]
OPERATIONS = ("DBKSVD iteration", "SAE step (topk)")
POWER_ITERATIONS = 3
TOLERANCE = 1e-5
COLUMNS = (
    *("operation", "ranks", "n", "m", "k", "d", "median_s", "samples_per_s", "efficiency"),
    *("cpu_s", "cpu_efficiency", "load", "sums", "summed_bytes", "difference"),
)


@dataclass(frozen=True)
class Size:
    """Samples a rank and iteration, atoms m, non-zeros k, width d."""

    rows: int
    m: int
    k: int
    d: int


SIZES = (Size(8192, 1024, 16, 384), Size(2048, 4096, 32, 768))
QUICK_SIZES = (Size(64, 16, 2, 8),)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="processes")
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--point", help=argparse.SUPPRESS)  # what the ranks are given
    options = parser.parse_args(arguments)
    if options.point:
        with join_ranks() as ranks, limit_threads(options.threads):
            row = measure_point(ranks, **json.loads(options.point))
            if ranks.is_first:
                print(json.dumps(row))
        return
    if options.output is None:
        parser.error("the following arguments are required: --output")
    rows = []
    for operation in OPERATIONS:
        for size in QUICK_SIZES if options.quick else SIZES:
            points = [run_point(operation, size, count, options) for count in options.ranks]
            for row in points:
                efficiency = {
                    "efficiency": points[0]["median_s"] / row["median_s"],
                    "cpu_efficiency": points[0]["cpu_s"] / row["cpu_s"],
                }
                rows.append(row | efficiency)
    path = options.output / "ranks.csv"
    table = write_table(rows, path, describe_machine("cpu", options.threads))
    print_table(table, COLUMNS, path)


def run_point(
    operation: str, size: Size, ranks: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Measure one point under torchrun; return its columns.

    Raises
    ------
    SystemExit
        With the last line of its errors, if it fails.
    """
    point = {"operation": operation, "repeats": options.repeats, "size": asdict(size)}
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    given = ["--point", json.dumps(point), "--threads", str(options.threads)]
    done = subprocess.run(
        [sys.executable, *launch, __file__, *given],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(options.threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if "rror" in line] or ["no message"]
        raise SystemExit(f"error: {operation} on {ranks} ranks: {reasons[0]}")
    columns: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    columns["load"] = os.getloadavg()[0]  # of the last minute, processes at work
    print(f"{operation} {size} on {ranks} ranks: {columns['median_s']:.3f} s", flush=True)
    return columns


def measure_point(
    ranks: Ranks, *, operation: str, repeats: int, size: dict[str, int]
) -> dict[str, Any]:
    """Return seconds, bytes and the difference from one process of one iteration or step.

    Raises
    ------
    SystemExit
        If the result is not that of one process: then there is nothing to time.
    """
    rows, m, k, d = Size(**size).__dict__.values()
    run = fit_dbksvd if operation == OPERATIONS[0] else train_sae
    n = rows * ranks.size
    x, atoms = draw_data(n, d, m)
    found = run(x, atoms, k, 2, ranks)[0]
    difference = 0.0
    if ranks.size > 1 and ranks.is_first:
        expected = run(x, atoms, k, 2, ALONE)[0]
        difference = float((found - expected).norm() / expected.norm())
        if difference > TOLERANCE:
            raise SystemExit(f"error: {operation} differs from one process by {difference:.1e}")
    ranks.sum_numbers(0)  # wait for the check
    before = (ranks.sums, ranks.summed_bytes, time.process_time())
    seconds = run(x, atoms, k, repeats + 1, ranks)[1]
    after = (ranks.sums, ranks.summed_bytes, time.process_time())
    sums, summed, cpu = ((b - a) / (repeats + 1) for a, b in zip(before, after, strict=True))
    return {
        **{"operation": operation, "ranks": ranks.size, "n": n, "m": m, "k": k, "d": d},
        **summarise(seconds[1:], n),
        "cpu_s": ranks.sum_numbers(cpu)[0] / ranks.size,
        "sums": sums,
        "summed_bytes": summed,
        "difference": difference,
    }


def fit_dbksvd(
    x: Tensor, atoms: Tensor, k: int, iterations: int, ranks: Ranks
) -> tuple[Tensor, np.ndarray]:
    """Return the atoms after some iterations on all of `x`, and the seconds of each."""
    settings = {"power_iterations": POWER_ITERATIONS, "polish_iter": 0, "batch_size": len(x)}
    model = DBKSVD(
        *(len(atoms), k), max_iter=iterations, init=atoms, device="cpu", ranks=ranks, **settings
    ).fit(MemoryActivations(x, x.mean(dim=0)))
    seconds = np.array([row["seconds_iteration"] for row in model.log_])
    return model.dictionary_.atoms, seconds


def train_sae(
    x: Tensor, atoms: Tensor, k: int, steps: int, ranks: Ranks
) -> tuple[Tensor, np.ndarray]:
    """Return the decoder after some steps on all of `x`, and the seconds of each."""
    shards: Any = MemoryActivations(x, x.mean(dim=0))
    settings = {
        **{"algorithm": "sae", "architecture": "topk", "batch_size": len(x)},
        **{"training_samples": steps * len(x), "measure_every": len(x), "lr_decay": 0.0},
    }
    method = find_method("sae")
    parsed: Any = parse(method.settings, settings)
    with tempfile.TemporaryDirectory() as folder:
        task = FitTask(
            *(shards, MemoryActivations(x[:64], shards.mean), len(atoms), k, 0, parsed),
            device=torch.device("cpu"),
            checkpoint=Path(folder),
            metadata={"model_name": "none", "hook_name": "none"},
            ranks=ranks,
        )
        result = method.fit(task)
    assert isinstance(result.dictionary, SavableSAE)
    seconds = np.diff([0.0, *(row["seconds"] for row in result.log)])
    return result.dictionary.sae.W_dec.detach(), seconds


if __name__ == "__main__":
    main()
