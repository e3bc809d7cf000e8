"""Peak memory of a fit that streams many samples from shards: bounded by the batch, not by n.

Synthetic parts are written block by block, the shard stage's own writer makes shards of them, and
DB-KSVD passes over all of them once. Each stage runs in a process of its own; the files go again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.processes import read_peak_memory, run_fresh
from benchmarks.timing import describe_machine, limit_threads, print_table, write_table
from dbksvd.activations.hdf5 import LABELS, create_file, record_dtype, write_rows
from dbksvd.activations.sharding import write_shards
from dbksvd.activations.shards import ActivationShards
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.fit.ksvd.schedule import choose_batch_size

HELDOUT_ROWS = 4096
BLOCK_ROWS = 1 << 15
ROWS_PER_SHARD = 250_000
# Parts, and rows dealt to shards, are on disk at once; labels and a shard more come on top.
COPIES, SPARE_BYTES = 2.1, 2**30
STAGES = ("parts", "shards", "fit")
COLUMNS = ("stage", "n", "d", "m", "k", "seconds", "peak_mib", "data_mib", "fve_heldout")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--n-atoms", type=int, default=512)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="stored")
    parser.add_argument("--folder", type=Path, help="for the shards; default a temporary one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stage:
        stages = {"parts": write_parts, "shards": shuffle_parts, "fit": fit_shards}
        started = time.perf_counter()
        with limit_threads(options.threads):
            row = stages[options.stage](options)
        row = {"seconds": time.perf_counter() - started} | row
        print(json.dumps(row | {"peak_mib": read_peak_memory() / 2**20}))
        return
    if options.output is None:
        parser.error("the following arguments are required: --output")
    with tempfile.TemporaryDirectory(prefix="dbksvd-memory-", dir=options.folder) as folder:
        options.folder = Path(folder)
        check_room(options)
        rows = [run_stage(stage, options) for stage in STAGES]
    path = options.output / "memory.csv"
    print_table(write_table(rows, path, describe_machine("cpu", options.threads)), COLUMNS, path)


def count_bytes(options: argparse.Namespace) -> int:
    """Return the bytes of the rows as they are stored."""
    rows = options.rows + HELDOUT_ROWS
    return int(rows * record_dtype(options.width, options.dtype).itemsize)


def check_room(options: argparse.Namespace) -> None:
    """Refuse in one line if the disk has no room."""
    needed = int(COPIES * count_bytes(options)) + SPARE_BYTES
    free = shutil.disk_usage(options.folder).free
    if free < needed:
        raise SystemExit(
            f"error: {options.folder}: expected {needed / 2**30:.1f} GiB of free disk for "
            f"{options.rows} rows, got {free / 2**30:.1f} GiB; --folder or --rows change it"
        )


def run_stage(stage: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one stage in a process of its own; return its row."""
    arguments = ["--stage", stage, "--folder", str(options.folder)]
    for name in ("rows", "width", "n_atoms", "k", "dtype", "threads"):
        arguments += ["--" + name.replace("_", "-"), str(getattr(options, name))]
    measured = run_fresh(__file__, arguments)
    print(f"{stage}: {measured['seconds']:.0f} s, {measured['peak_mib']:.0f} MiB", flush=True)
    sizes = {"n": options.rows, "d": options.width, "m": options.n_atoms, "k": options.k}
    stored = {"dtype": options.dtype, "data_mib": count_bytes(options) / 2**20}
    return {"stage": stage, **sizes, **stored, **measured}


def write_parts(options: argparse.Namespace) -> dict[str, Any]:
    """Write one part of sparse combinations of planted atoms with noise."""
    generator = np.random.default_rng(0)
    planted = generator.standard_normal((options.n_atoms, options.width), np.float32)
    planted /= np.linalg.norm(planted, axis=1, keepdims=True)
    attributes = {"slice": 0, "slices": 1, "dtype": options.dtype, "model": "synthetic"}
    tables = {"train": options.rows, "heldout": HELDOUT_ROWS}
    kind = record_dtype(options.width, options.dtype)
    with create_file(
        options.folder / "part.h5", tables, options.width, options.dtype, attributes
    ) as file:
        for split, rows in tables.items():
            for start in range(0, rows, BLOCK_ROWS):
                count = min(BLOCK_ROWS, rows - start)
                records = np.zeros(count, kind)
                records["activations"] = draw_rows(planted, count, options.k, generator)
                for label in LABELS:
                    records[label] = np.arange(start, start + count)
                write_rows(file[split], start, records)
    return {}


def draw_rows(
    planted: np.ndarray, count: int, k: int, generator: np.random.Generator
) -> np.ndarray:
    """Return `count` rows: k planted atoms each, and noise of about a tenth of their norm."""
    rows = generator.standard_normal((count, planted.shape[1]), np.float32)
    rows *= 0.1 * (k / planted.shape[1]) ** 0.5
    for _ in range(k):
        weights = generator.random((count, 1), np.float32) * 2
        rows += weights * planted[generator.integers(len(planted), size=count)]
    return rows


def shuffle_parts(options: argparse.Namespace) -> dict[str, Any]:
    """Make shards as the workflow does, and remove the parts."""
    part = options.folder / "part.h5"
    settings = {"rows_per_shard": ROWS_PER_SHARD}
    write_shards([part], settings, options.folder / "shards")
    part.unlink()
    return {}


def fit_shards(options: argparse.Namespace) -> dict[str, Any]:
    """Pass over all shards once with DB-KSVD's defaults."""
    shards = options.folder / "shards"
    train, heldout = (ActivationShards.open(shards, split) for split in ("train", "heldout"))
    batch = choose_batch_size(options.n_atoms, options.k)
    iterations = -(-len(train) // batch)
    model = DBKSVD(options.n_atoms, options.k, max_iter=iterations, polish_iter=0, device="cpu")
    model.fit(train, heldout=heldout)
    last = model.log_[-1]
    if last["samples_seen"] < len(train):
        raise SystemExit(f"error: expected a pass over {len(train)} samples, got {last}")
    columns = ("samples_seen", "fve_heldout")
    return {"batch_size": batch, "iterations": iterations} | {name: last[name] for name in columns}


if __name__ == "__main__":
    main()
