"""Time sparse coding and atom updates of every implementation at hand, side by side.

Correctness first: each implementation must agree with the reference on a part of the data before it
is timed. Then one pass of coding and updating over many samples, beside the floor that follows from
the matrix rate and the bandwidth measured here. Needs neither peers nor the workflow.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.data import draw_data
from benchmarks.passes import POWER_ITERATIONS, PassSize, list_modes, measure_ceilings, run_pass
from benchmarks.timing import (
    describe_machine,
    limit_threads,
    print_table,
    summarise,
    time_round_robin,
    write_table,
)
from dbksvd.base.codes import SparseCodes
from dbksvd.ops.atom_update.update import update_atoms_
from dbksvd.ops.implementation import IMPLEMENTATIONS
from dbksvd.ops.pursuit.encode import sparse_encode

# n, d, m, k
SHAPES = {
    "cpu": ((2048, 384, 2048, 20), (2048, 768, 4096, 20)),
    "cuda": (
        (65536, 384, 2048, 20),
        (65536, 768, 4096, 20),
        (65536, 768, 4096, 64),
        (65536, 2304, 16384, 40),
        (16384, 768, 32768, 32),
    ),
    "quick": ((96, 16, 40, 3),),
}
# On the CPU a part of the pass: enough for its rate (the Gram matrix is timed by itself).
PASSES = {
    "cpu": PassSize(4096, 2304, 16384, 40),
    "cuda": PassSize(1 << 20, 2304, 16384, 40),
    "quick": PassSize(96, 16, 40, 3),
}
# Side of the product and bytes of the copy that show the ceilings.
CEILINGS = {"cpu": (2048, 1 << 28), "cuda": (16384, 1 << 33), "quick": (64, 1 << 12)}
# What is coded how; omp and ols fit while they pick.
CODINGS: dict[str, dict[str, Any]] = {
    "mp + refit": {"method": "mp", "nonnegative": True},
    "omp + refit": {"method": "omp", "nonnegative": False},
    "ols": {"method": "ols", "nonnegative": False},
    "ols, non-negative": {"method": "ols", "nonnegative": True},
}
# Batched torch codes no more atoms than this by ols on a device, which it would take minutes of.
LARGEST_BATCHED_OLS = 2048
PASS_REPEATS = 3
CHECKED_ROWS = 64
LARGEST_REFERENCE = 4096  # atoms; beyond it batched torch in float64 stands for the reference
LARGEST_ERROR, MOST_TIES = 0.02, 0.05
KERNEL_COLUMNS = ("operation", "implementation", "n", "d", "m", "k", "median_s", "samples_per_s")
PASS_COLUMNS = ("stage", "mode", "n", "d", "m", "k", "median_s", "floor_s", "times_floor")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--pass-seconds", type=float, default=20, help="no pass begins after")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    options = parser.parse_args(arguments)

    device = torch.device(options.device)
    size = "quick" if options.quick else device.type
    with limit_threads(options.threads):
        machine = describe_machine(device, options.threads)
        rows = [row for shape in SHAPES[size] for row in time_shape(shape, device, options.repeats)]
        path = options.output / f"kernels-{device.type}.csv"
        print_table(write_table(rows, path, machine), KERNEL_COLUMNS, path)

        ceilings = measure_ceilings(device, *CEILINGS[size])
        for mode, rate in ceilings.flops.items():
            print(f"matrix product, {mode}: {rate / 1e12:.4g} TFLOP/s")
        print(f"copy: {ceilings.bandwidth / 1e9:.4g} GB/s")
        rows = []
        for mode in list_modes(device):
            rows += run_pass(
                *(PASSES[size], device, mode, ceilings),
                repeats=PASS_REPEATS,
                most_seconds=options.pass_seconds,
            )
        path = options.output / f"pass-{device.type}.csv"
        print_table(write_table(rows, path, machine), PASS_COLUMNS, path)


def time_shape(
    shape: tuple[int, int, int, int], device: torch.device, repeats: int
) -> list[dict[str, Any]]:
    """Check and time every operation and implementation at one shape; return their rows."""
    n, d, m, k = shape
    x, atoms = draw_data(n, d, m, device)
    runs = dict(list_runs(x, atoms, k))
    sizes = {"n": n, "d": d, "m": m, "k": k, "dtype": "float32"}
    return [
        {"operation": operation, "implementation": name, **sizes} | summarise(seconds, n)
        for (operation, name), seconds in time_round_robin(runs, repeats, device=device).items()
    ]


def list_runs(
    x: Tensor, atoms: Tensor, k: int
) -> Iterator[tuple[tuple[str, str], Callable[[], Any]]]:
    """Yield (operation, implementation) and its run, each checked against the reference first."""
    products = x.new_empty(len(x), len(atoms))
    yield ("X Dᵀ", "torch"), lambda: torch.matmul(x, atoms.T, out=products)
    names = find_implementations(x, atoms)
    for what, settings in CODINGS.items():
        expected = compute_expected(x[:CHECKED_ROWS], atoms, k, settings)
        for name in names:
            if is_too_slow(settings, name, x, atoms):
                continue
            codes = sparse_encode(x[:CHECKED_ROWS], atoms, k, implementation=name, **settings)
            check_reconstruction(f"{name} {what}", codes.decode(atoms), expected)
            run = partial(sparse_encode, x, atoms, k, implementation=name, **settings)
            yield (what, name), run
    codes = sparse_encode(x, atoms, k)
    expected_residual = None
    for name in names:

        def update(name: str = name) -> Tensor:
            copied = SparseCodes(codes.indices, codes.values.clone(), codes.n_atoms)
            return update_atoms_(
                *(x, copied, atoms.clone()),
                atom_batch=max(1, len(atoms) // k),
                power_iterations=POWER_ITERATIONS,
                implementation=name,
            )

        residual = update()
        if expected_residual is None:
            expected_residual = residual.cpu().double()
        check_reconstruction(f"{name} update", residual, expected_residual)
        yield (f"atom update, {POWER_ITERATIONS} power steps", name), update


def is_too_slow(settings: dict[str, Any], name: str, x: Tensor, atoms: Tensor) -> bool:
    """Return whether an implementation is left out at a shape."""
    is_large = len(atoms) > LARGEST_BATCHED_OLS
    return settings["method"] == "ols" and name == "batched" and x.is_cuda and is_large


def compute_expected(x: Tensor, atoms: Tensor, k: int, settings: dict[str, Any]) -> Tensor:
    """Return the float64 reconstruction that all implementations must agree with."""
    if len(atoms) <= LARGEST_REFERENCE:
        x, atoms, name = x.cpu(), atoms.cpu(), "reference"
    else:
        name = "batched"
    codes = sparse_encode(x.double(), atoms.double(), k, implementation=name, **settings)
    return codes.decode(atoms.double()).cpu()


def check_reconstruction(what: str, got: Tensor, expected: Tensor) -> None:
    """Stop if more samples differ from the reference than ties in float32 explain."""
    # Where two products are equal to the last digit, a sample may go another way from there on.
    errors = torch.linalg.vector_norm(got.cpu().double() - expected, dim=1)
    off = errors > LARGEST_ERROR * torch.linalg.vector_norm(expected, dim=1)
    if not (torch.isfinite(errors).all() and off.double().mean() <= MOST_TIES):
        raise SystemExit(
            f"error: {what}: expected at most {MOST_TIES:.0%} of the samples to differ from the "
            f"reference by more than {LARGEST_ERROR}, got {off.double().mean():.0%}"
        )


def find_implementations(x: Tensor, atoms: Tensor) -> list[str]:
    """Return the implementations that run here, without the reference."""
    found = []
    for name in IMPLEMENTATIONS:
        if name == "reference":
            continue
        try:
            sparse_encode(x[:2], atoms, 1, implementation=name)
        except ValueError:
            continue
        found.append(name)
    return found


if __name__ == "__main__":
    main()
