"""Sparse coding, ours against SPAMS, scikit-learn and SAELens: samples a second, side by side.

Correctness first: variance explained of all contestants must agree (peers.AGREEMENTS), or nothing
is reported. All have the same number of threads and take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.blas import begin_again_with_kernels
from benchmarks.coding_floor import GRAM_ROWS, prepare_row_sums
from benchmarks.data import DEFAULT_SHARDS, draw_data, explain_variance, fit_atoms, load_activations
from benchmarks.peers import CODERS, GRAM, PRODUCT, Coder, find_disagreement
from benchmarks.timing import (
    describe_machine,
    limit_threads,
    print_table,
    summarise,
    time_once,
    time_round_robin,
    write_table,
)

SHAPES = (  # d, m, k, samples, rounds
    (384, 2048, 20, 16384, 7),
    (768, 4096, 20, 8192, 5),
    (768, 4096, 64, 4096, 5),
    (2304, 16384, 40, 2048, 3),
)
QUICK_SHAPES = ((16, 48, 3, 256, 1), (32, 64, 4, 128, 1))
CHECKED_ROWS = (4, 8, 16, 32, 64, 128, 256)
FEWEST_ROWS = 4
COLUMNS = ("contestant", "d", "m", "k", "n", "median_s", "samples_per_s", "fve")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--activations", type=Path, default=DEFAULT_SHARDS, help="for d = 384")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--shapes", type=int, nargs="*", help="positions in the list of shapes")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    options = parser.parse_args(arguments)

    shapes = QUICK_SHAPES if options.quick else SHAPES
    chosen = range(len(shapes)) if options.shapes is None else options.shapes
    coders = [coder for coder in CODERS if coder.is_installed]
    for coder in CODERS:
        if not coder.is_installed:
            print(f"left out: {coder.name} (pip install -r benchmarks/requirements.txt)")
    rows: list[dict[str, Any]] = []
    for position in chosen:
        d, m, k, n, repeats = shapes[position]
        x, atoms, source = make_problem(d, m, k, n, options.activations)
        rows += compare_coders(coders, x, atoms, k, repeats, options.threads, source)
    path = options.output / "coding.csv"
    print_table(write_table(rows, path, describe_machine("cpu", options.threads)), COLUMNS, path)


def make_problem(
    d: int, m: int, k: int, n: int, activations: Path
) -> tuple[Tensor, Tensor, dict[str, str]]:
    """Return samples, atoms and what they are: real where there are activations of that width."""
    if (activations / "manifest.json").is_file() or (activations / "train.npy").is_file():
        data = load_activations(activations, rows=None, heldout_rows=n)
        if data.train.width == d and len(data.heldout) >= n:
            atoms = fit_atoms(data.train, m, k)
            source = {"data": data.name, "dictionary": "DB-KSVD, 8 iterations"}
            return (data.heldout.rows - data.train.mean).contiguous(), atoms, source
    return *draw_data(n, d, m), {"data": "synthetic", "dictionary": "other samples"}


def compare_coders(
    coders: Sequence[Coder],
    x: Tensor,
    atoms: Tensor,
    k: int,
    repeats: int,
    threads: int,
    source: dict[str, str],
) -> list[dict[str, Any]]:
    """Check and time all contestants at one shape; return their rows."""
    (n, d), m = x.shape, len(atoms)
    explained: dict[str, dict[int, float]] = {}
    runs: dict[str, Callable[[], Any]] = {}
    counts: dict[str, int] = {}
    products, gram = x.new_empty(n, m), x.new_empty(m, m)
    # Into memory that is there already: the floor that coding is held against is a fair one.
    runs[PRODUCT], counts[PRODUCT] = lambda: torch.matmul(x, atoms.T, out=products), n
    runs[GRAM], counts[GRAM] = lambda: torch.matmul(atoms, atoms.T, out=gram), m
    runs[GRAM_ROWS], counts[GRAM_ROWS] = prepare_row_sums(gram, n, k), n
    for coder in coders:
        coder.prepare(x[:2], atoms[:2], 1)  # imports, before threads are limited
    with limit_threads(threads):
        for part in runs.values():
            part()
        for coder in coders:
            counts[coder.name] = count_samples(coder, x, atoms, k)
            samples = x[: counts[coder.name]].contiguous()
            run, decode = coder.prepare(samples, atoms, k)
            explained[coder.name] = check_rows(samples, decode(run()))
            runs[coder.name] = run
        problem = find_disagreement(explained)
        if problem:
            raise SystemExit(f"error: d={d} m={m} k={k}: {problem}")
        seconds = time_round_robin(runs, repeats, is_warm=True)
    shape = {"d": d, "m": m, "k": k}
    common = max(set.intersection(*(set(values) for values in explained.values())))
    return [
        {"contestant": name, **shape, "n": counts[name]}
        | summarise(taken, counts[name])
        | report_explained(explained.get(name, {}), common)
        | source
        for name, taken in seconds.items()
    ]


def count_samples(coder: Coder, x: Tensor, atoms: Tensor, k: int) -> int:
    """Return how many samples a contestant gets: all, or what it does in its time."""
    if coder.most_seconds is None:
        return len(x)
    rows = FEWEST_ROWS
    for _ in range(2):  # few samples show the costs of a call, more of them those of a sample
        run, _ = coder.prepare(x[:rows].contiguous(), atoms, k)
        run()
        rows = min(len(x), max(FEWEST_ROWS, int(rows * coder.most_seconds / time_once(run))))
    return rows


def check_rows(x: Tensor, reconstruction: Tensor) -> dict[int, float]:
    """Return variance explained on the first r samples, for r of CHECKED_ROWS and all samples."""
    powers = [r for r in CHECKED_ROWS if r <= len(x)]
    explained = {r: explain_variance(x[:r], reconstruction[:r]) for r in powers}
    return explained | {len(x): explain_variance(x, reconstruction)}


def report_explained(explained: dict[int, float], common: int) -> dict[str, float | int]:
    """Return variance explained on all samples of a contestant, and on those that all had."""
    if not explained:
        return {}
    return {
        "fve": explained[max(explained)],
        "fve_common": explained[common],
        "common_samples": common,
    }


if __name__ == "__main__":
    begin_again_with_kernels()
    main()
