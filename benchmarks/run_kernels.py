"""Time sparse coding and atom updates of every implementation at hand, side by side.

Correctness first: each implementation must agree with the reference on a part of the data before it
is timed. Writes CSV with median, 20th and 80th percentile, shapes, dtype, device and versions.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dbksvd.files import replace_file
from dbksvd.ops.atom_update import update_atoms_
from dbksvd.ops.implementation import IMPLEMENTATIONS
from dbksvd.ops.pursuit import sparse_encode

SHAPES = ((2048, 384, 2048, 20), (2048, 768, 4096, 20))  # n, d, m, k
CUDA_SHAPES = ((65536, 384, 2048, 20), (65536, 2304, 16384, 40))
CHECKED_ROWS = 64


def draw_data(n: int, d: int, m: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return samples with a decaying spectrum, as activations have, and unit atoms."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.arange(1, d + 1).float().pow(-0.5)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
    x = (torch.randn(n, d, generator=generator) * spectrum) @ rotation
    atoms = (torch.randn(m, d, generator=generator) * spectrum) @ rotation
    return x.to(device), torch.nn.functional.normalize(atoms, dim=1).to(device)


def measure(run: Callable[[], Any], device: torch.device, repeats: int) -> np.ndarray:
    """Return seconds of `repeats` runs after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return np.array(seconds[1:])


def list_runs(
    x: torch.Tensor, atoms: torch.Tensor, k: int
) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Yield (operation, implementation, run), each checked against the reference first."""
    yield "products X Dᵀ", "torch", lambda: x @ atoms.T
    checked = x[:CHECKED_ROWS]
    for method in ("mp", "omp"):
        settings = {"method": method, "nonnegative": method == "mp"}
        expected = sparse_encode(
            checked.cpu().double(), atoms.cpu().double(), k, implementation="reference", **settings
        ).decode(atoms.cpu().double())
        for name in _find_implementations(x, atoms):
            codes = sparse_encode(checked, atoms, k, implementation=name, **settings)
            difference = codes.decode(atoms).cpu().double() - expected
            # A tie in float32 may change one pick of a sample; the whole must agree.
            error = (difference.norm() / expected.norm()).item()
            if error > 0.02:
                raise SystemExit(
                    f"error: {name} {method}: differs from the reference by {error:.3g}"
                )
            yield (
                f"{method} + refit",
                name,
                lambda name=name, settings=settings: sparse_encode(
                    x, atoms, k, implementation=name, **settings
                ),
            )
    codes = sparse_encode(x, atoms, k)
    for name in _find_implementations(x, atoms):

        def update(name: str = name) -> None:
            copied = type(codes)(codes.indices, codes.values.clone(), codes.n_atoms)
            update_atoms_(
                x, copied, atoms.clone(), atom_batch=64, power_iterations=1, implementation=name
            )

        yield "atom update, 1 power step", name, update


def _find_implementations(x: torch.Tensor, atoms: torch.Tensor) -> list[str]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    rows = []
    for n, d, m, k in CUDA_SHAPES if device.type == "cuda" else SHAPES:
        x, atoms = draw_data(n, d, m, device)
        for operation, name, run in list_runs(x, atoms, k):
            seconds = measure(run, device, arguments.repeats)
            low, median, high = np.percentile(seconds, (20, 50, 80))
            rows.append(
                {"operation": operation, "implementation": name, "n": n, "d": d, "m": m, "k": k}
                | {"median_s": median, "p20_s": low, "p80_s": high, "samples_per_s": n / median}
            )
    table = pd.DataFrame(rows).assign(
        dtype="float32",
        device=torch.cuda.get_device_name()
        if device.type == "cuda"
        else platform.processor() or "cpu",
        threads=arguments.threads,
        torch=torch.__version__,
        python=platform.python_version(),
    )
    path = arguments.output / f"kernels-{arguments.device}.csv"
    with replace_file(path) as temporary:
        table.to_csv(temporary, index=False)
    print(table.iloc[:, :10].to_string(index=False, float_format="{:.4g}".format))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
