"""The shard stage in MiB a second, beside a copy of the same file.

A part of random rows is written once for each type; then its shards are made and the part is copied
in turns. The first round, in which kernels are compiled, is not counted.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.run_memory import count_bytes, write_parts
from benchmarks.timing import describe_machine, print_table, write_table
from dbksvd.activations.sharding import write_shards

ROWS_PER_SHARD = 50_000
COLUMNS = ("dtype", "workers", "n", "d", "mib", "median_s", "cpu_s", "mib_per_s", "times_copy")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="for the files; default a temporary one")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for options.dtype in ("float32", "float16"):
        with tempfile.TemporaryDirectory(prefix="dbksvd-disk-", dir=options.folder) as folder:
            rows += measure(options, Path(folder))
    path = options.output / "disk.csv"
    print_table(
        write_table(rows, path, describe_machine("cpu", max(options.threads))), COLUMNS, path
    )


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Return a row for each number of threads, all measured in the same rounds."""
    given = argparse.Namespace(**vars(options) | {"folder": folder, "n_atoms": 8, "k": 1})
    write_parts(given)
    part, mib = folder / "part.h5", count_bytes(given) / 2**20
    seconds: dict[int, list[float]] = {threads: [] for threads in options.threads}
    cpu: dict[int, list[float]] = {threads: [] for threads in options.threads}
    copies: list[float] = []
    for count in range(options.rounds + 1):
        started = time.perf_counter()
        shutil.copyfile(part, folder / "copy.h5")
        copies.append(time.perf_counter() - started)
        for threads in options.threads:
            started, before = time.perf_counter(), time.process_time()
            settings = {"rows_per_shard": ROWS_PER_SHARD}
            write_shards([part], settings, folder / "shards", threads=threads)
            if count:
                seconds[threads].append(time.perf_counter() - started)
                cpu[threads].append(time.process_time() - before)
    copy = statistics.median(copies[1:])
    return [
        {
            "dtype": options.dtype,
            "workers": threads,
            "n": options.rows,
            "d": options.width,
            "mib": mib,
            "median_s": (median := statistics.median(seconds[threads])),
            "cpu_s": statistics.median(cpu[threads]),
            "mib_per_s": mib / median,
            "times_copy": median / copy,
        }
        for threads in options.threads
    ]


if __name__ == "__main__":
    main()
