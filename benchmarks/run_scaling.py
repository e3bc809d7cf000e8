"""Seconds and peak memory of fitting and coding against n, m, k and d, each swept alone.

Every point runs in a process of its own, so that its peak memory is its own. A fit reads its
samples as if from shards (one block, again and again), and passes once over them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.data import draw_data
from benchmarks.processes import read_memory, read_peak_memory, run_fresh
from benchmarks.timing import (
    describe_machine,
    limit_threads,
    print_table,
    summarise,
    time_round_robin,
    write_table,
)
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.ops.pursuit.encode import sparse_encode

BATCH = 8192  # samples an iteration of a fit
BLOCK = 8192  # different samples that a fit sees
OPERATIONS = ("DBKSVD.fit", "sparse_encode")
AXES = {"n": "samples n", "m": "atoms m", "k": "non-zeros k", "d": "width d"}
MEASURES = {"median_s": "seconds", "peak_mib": "peak memory (MiB)"}
COLUMNS = ("operation", "swept", "n", "m", "k", "d", "median_s", "peak_mib", "baseline_mib")


@dataclass(frozen=True)
class Size:
    """One point: samples n, atoms m, non-zeros k, width d."""

    n: int
    m: int
    k: int
    d: int


BASE = Size(32768, 1024, 16, 384)
SWEEPS: dict[str, tuple[int, ...]] = {
    "n": (8192, 16384, 32768, 65536, 131072),
    "m": (256, 1024, 4096, 8192),
    "k": (4, 16, 32, 64),
    "d": (96, 384, 768, 1536),
}
QUICK_BASE = Size(512, 32, 4, 16)
QUICK_SWEEPS: dict[str, tuple[int, ...]] = {
    "n": (256, 512),
    "m": (16, 32),
    "k": (2, 4),
    "d": (8, 16),
}


class RepeatedBlock:
    """n samples that are one block again and again: n grows, memory does not."""

    def __init__(self, block: Tensor, n: int) -> None:
        self.block, self.n = block, n
        self.width, self.mean = block.shape[1], block.mean(dim=0)

    def __len__(self) -> int:
        return self.n

    def read(self, start: int, stop: int) -> Tensor:
        """Return samples `start` to `stop`."""
        return self.block[torch.arange(start, stop) % len(self.block)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--point", help=argparse.SUPPRESS)  # what a process of its own is given
    options = parser.parse_args(arguments)
    if options.point:
        print(json.dumps(measure_point(options.threads, **json.loads(options.point))))
        return
    if options.output is None:
        parser.error("the following arguments are required: --output")
    base, sweeps = (QUICK_BASE, QUICK_SWEEPS) if options.quick else (BASE, SWEEPS)
    measured: dict[tuple[str, Size], dict[str, Any]] = {}
    rows = []
    for operation in OPERATIONS:
        for swept, size in list_points(base, sweeps):
            if (operation, size) not in measured:
                measured[operation, size] = run_point(operation, size, options)
            row = {"operation": operation, "swept": swept, **asdict(size)}
            rows.append(row | measured[operation, size])
    path = options.output / "scaling.csv"
    table = write_table(rows, path, describe_machine("cpu", options.threads))
    print_table(table, COLUMNS, path)
    draw_scaling(table, base, options.output)


def list_points(base: Size, sweeps: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Size]]:
    """Yield what is swept and the size, for all points."""
    for swept, values in sweeps.items():
        for value in values:
            yield swept, replace(base, **{swept: value})


def run_point(operation: str, size: Size, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one point in a process of its own; return its columns."""
    point = {"operation": operation, "repeats": options.repeats, "size": asdict(size)}
    started = time.perf_counter()
    columns = run_fresh(__file__, ["--point", json.dumps(point), "--threads", str(options.threads)])
    print(f"{operation} {size}: {time.perf_counter() - started:.0f} s in all", flush=True)
    return columns


def measure_point(
    threads: int, *, operation: str, repeats: int, size: dict[str, int]
) -> dict[str, Any]:
    """Return seconds and peak memory (MiB) of one point; to be run in a fresh process."""
    n, m, k, d = Size(**size).__dict__.values()
    with limit_threads(threads):
        is_fit = operation == "DBKSVD.fit"
        x, atoms = draw_data(min(n, BLOCK) if is_fit else n, d, m)
        source = RepeatedBlock(x, n)

        def fit(rows: Any = source, iterations: int = -(-n // BATCH)) -> None:
            DBKSVD(
                *(m, k),
                max_iter=iterations,
                polish_iter=0,
                batch_size=min(BATCH, n),
                init=atoms,
                device="cpu",
            ).fit(rows)

        # Compiles, and shows what a process needs before it does anything.
        sparse_encode(x[:4], atoms[:4], 1)
        DBKSVD(2, 1, max_iter=1, polish_iter=0, device="cpu").fit(x[:8])
        baseline = read_memory()
        run = fit if is_fit else lambda: sparse_encode(x, atoms, k)
        row = summarise(time_round_robin({"": run}, repeats)[""], n)
    mib = 1 / 2**20
    return row | {"peak_mib": read_peak_memory() * mib, "baseline_mib": baseline * mib}


def draw_scaling(table: Sequence[dict[str, Any]], base: Size, folder: Path) -> None:
    """Draw small multiples, log-log, as PNG and SVG: a row a measure, a column a swept size."""
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns

    from dbksvd.base.files import replace_file

    frame = pd.DataFrame(table)
    with sns.axes_style("whitegrid"), sns.plotting_context("notebook"):
        figure, axes = plt.subplots(
            *(len(MEASURES), len(AXES)),
            figsize=(3.2 * len(AXES), 3.0 * len(MEASURES)),
            sharey="row",
            layout="constrained",
        )
        for row, (measure, label) in enumerate(MEASURES.items()):
            for column, (swept, name) in enumerate(AXES.items()):
                ax = axes[row, column]
                sns.lineplot(
                    frame[frame["swept"] == swept],
                    x=swept,
                    y=measure,
                    hue="operation",
                    style="operation",
                    hue_order=OPERATIONS,
                    style_order=OPERATIONS,
                    palette="colorblind",
                    markers=True,
                    dashes=False,
                    legend=row == column == 0,
                    ax=ax,
                )
                ax.set_xscale("log", base=2)
                ax.set_yscale("log")
                ax.set(xlabel=name, ylabel=label)
        axes[0, 0].legend(title=None)
        rest = ", ".join(f"{name} = {value}" for name, value in asdict(base).items())
        figure.suptitle(f"One size swept, the others as in {rest}", fontsize="medium")
        for suffix in (".png", ".svg"):
            with replace_file(folder / f"scaling{suffix}") as temporary:
                figure.savefig(temporary, dpi=160, format=suffix[1:])
        plt.close(figure)


if __name__ == "__main__":
    main()
