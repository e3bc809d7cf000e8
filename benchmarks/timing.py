"""The one way in which benchmarks warm up, take times, name the machine and write CSV."""

from __future__ import annotations

import csv
import platform
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dbksvd.base.files import replace_file

Name = TypeVar("Name", bound=Hashable)
PEERS = ("scikit-learn", "sae-lens", "spams-bin", "ksvd")


def time_round_robin(
    runs: Mapping[Name, Callable[[], Any]],
    repeats: int,
    *,
    device: torch.device | str = "cpu",
    is_warm: bool = False,
) -> dict[Name, np.ndarray]:
    """Time contestants in turns, so that whatever else the machine does meets all of them.

    Parameters
    ----------
    runs : mapping of name to callable
        What to time.
    repeats : int
        Timed rounds, after one that warms up unless all `is_warm`.
    device : torch.device or str
        Synchronised after each run where it is CUDA.

    Returns
    -------
    dict of name to ndarray of shape (repeats,)
        Seconds.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + (not is_warm)):
        for name, run in runs.items():
            seconds[name].append(time_once(run, device))
    return {name: np.array(values[-repeats:]) for name, values in seconds.items()}


def time_once(run: Callable[[], Any], device: torch.device | str = "cpu") -> float:
    """Return the seconds of one run on an idle device, until the device has ended it."""
    synchronise(device)  # work queued before, such as drawing the samples, is not part of the run
    started = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device: torch.device | str) -> None:
    """Wait until a CUDA device has done all its work; the CPU has no queue."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def summarise(seconds: np.ndarray, samples: int | None = None) -> dict[str, float]:
    """Return median, 20th and 80th percentile in seconds, and samples a second at the median."""
    low, median, high = np.percentile(seconds, (20, 50, 80))
    row = {"median_s": median, "p20_s": low, "p80_s": high, "repeats": len(seconds)}
    return row if samples is None else row | {"samples_per_s": samples / median}


@contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """Give torch, BLAS and OpenMP the same number of threads.

    Peers that are not loaded yet are not reached; import them first.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # a machine for `make gpu` has torch only
        torch.set_num_threads(threads)
        yield
        return
    before = torch.get_num_threads()
    with threadpool_limits(threads):
        torch.set_num_threads(threads)
        yield
    torch.set_num_threads(before)


def describe_machine(device: torch.device | str, threads: int) -> dict[str, Any]:
    """Return the columns that every table ends with: device, CPU, threads, versions."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peers = {package: find_version(package) for package in PEERS}
    return {
        "device": name,
        "cpu": _find_cpu_model(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": find_version("numba"),
        "triton": find_version("triton"),
        "peers": " ".join(f"{package}={version}" for package, version in peers.items() if version),
    }


def find_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def write_table(
    rows: Sequence[Mapping[str, Any]], path: Path, machine: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Write rows as CSV with the columns of the machine behind them, atomically; return them."""
    table = [{**row, **machine} for row in rows]
    columns = list(dict.fromkeys(column for row in table for column in row))
    with replace_file(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return table


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    """Show some columns, and say where the whole table is."""
    cells = [list(columns)] + [[_format(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print(f"written to {path}\n", flush=True)


def _format(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _find_cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
