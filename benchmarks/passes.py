"""One pass of coding and updating over many samples, beside the floor that the machine sets.

Legend: n samples, d width, m atoms, k non-zeros, p power iterations, B batches of atoms. The floor
is counted as in NOTES.md, and turned into seconds by the two ceilings measured here: a large matrix
product and a copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from benchmarks.data import make_sampler
from benchmarks.timing import summarise, synchronise, time_once
from dbksvd.fit.measure import sum_squares
from dbksvd.ops.atom_update.update import update_atoms_
from dbksvd.ops.pursuit.encode import sparse_encode

WORD = 4  # bytes of a float32
SECTOR = 32  # bytes that memory gives at least
POWER_ITERATIONS = 3  # the default of DBKSVD
CEILING_REPEATS = 5


@dataclass(frozen=True)
class Mode:
    """How products are made: torch's precision, settings of the coding; bytes of a product."""

    precision: str
    settings: dict[str, Any]
    gram: str  # the mode of the Gram matrix
    product_bytes: int = 4


MODES = {
    "float32": Mode("highest", {}, "float32"),
    "tf32": Mode("high", {}, "tf32"),
    # Picks by rounded products; the refit makes the coefficients exact.
    "bfloat16": Mode("highest", {"product_dtype": "bfloat16"}, "float32", 2),
}


@dataclass(frozen=True)
class PassSize:
    """Samples n, width d, atoms m, non-zeros k."""

    n: int
    d: int
    m: int
    k: int

    @property
    def atom_batch(self) -> int:
        """Atoms of a batch, as DBKSVD chooses them."""
        return max(1, self.m // self.k)


@dataclass(frozen=True)
class Ceilings:
    """What the device does at most: operations a second by mode, and bytes a second."""

    flops: dict[str, float]
    bandwidth: float


def measure_ceilings(device: torch.device, side: int, copied_bytes: int) -> Ceilings:
    """Time a square matrix product in each mode, and a copy (read and write), at their best."""
    flops = {}
    for mode in list_modes(device):
        a = torch.randn(side, side, device=device)
        a = a.bfloat16() if mode == "bfloat16" else a
        with multiply_in(mode):
            flops[mode] = 2 * side**3 / _time_best(partial(torch.matmul, a, a), device)
    source = torch.ones(copied_bytes // WORD, device=device)
    target = torch.empty_like(source)
    seconds = _time_best(lambda: target.copy_(source), device)
    return Ceilings(flops, 2 * WORD * len(source) / seconds)


def list_modes(device: torch.device) -> list[str]:
    """Return the modes that make a difference on a device."""
    return list(MODES) if device.type == "cuda" else ["float32"]


@contextmanager
def multiply_in(mode: str) -> Iterator[None]:
    """Let torch multiply float32 matrices in a mode."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(MODES[mode].precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def count_floor(size: PassSize, ceilings: Ceilings, mode: str) -> dict[str, float]:
    """Return the least seconds of each stage.

    - gram: 2 d m² operations.
    - code: the Gram matrix; 2 n d m operations for the products, which are written and read; k − 1
      rows of the Gram matrix a sample; and for the refit k² of its sectors of 32 bytes. Rounded
      products make the refit read its k atoms too.
    - update: the residual (x in, it out, k atoms a sample); the n k rows of the residual that hold
      an atom, once a power iteration; and in each of B batches the rows with an entry in it, a
      share of 1 − (1 − 1/B)ᵏ, in and out.
    """
    n, d, m, k = size.n, size.d, size.m, size.k
    rate, bandwidth = ceilings.flops, ceilings.bandwidth
    kind = MODES[mode]
    batches = -(-m // size.atom_batch)
    share = 1 - (1 - 1 / batches) ** k
    atoms = WORD * n * k * d  # bytes of k atoms, or of k rows of the residual, a sample
    gram = 2 * d * m**2 / rate[kind.gram]
    coded = 2 * kind.product_bytes * n * m + WORD * n * m * (k - 1) + SECTOR * n * k**2
    if mode == "bfloat16":
        coded += atoms
    rows = 2 * WORD * n * d  # bytes of all rows, in and out
    code = gram + 2 * n * d * m / rate[mode] + coded / bandwidth
    update = (rows + atoms + POWER_ITERATIONS * atoms + share * batches * rows) / bandwidth
    return {"gram": gram, "code": code, "update": update, "pass": code + update}


def run_pass(
    size: PassSize,
    device: torch.device,
    mode: str,
    ceilings: Ceilings,
    *,
    repeats: int,
    most_seconds: float,
) -> list[dict[str, Any]]:
    """Code and update, again and again from the atoms it ended with; return a row a stage.

    Parameters
    ----------
    size : PassSize
        What is passed over; samples are made on the device, outside the time.
    device, mode
        Where, and in which precision products are made.
    ceilings : Ceilings
        For the floor.
    repeats : int
        Passes, on new samples each.
    most_seconds : float
        No further pass begins after so many seconds.
    """
    draw = make_sampler(size.d, device)
    atoms = F.normalize(draw(size.m), dim=1)
    # What coding costs before any sample: one sample has all of it.
    code_one = partial(sparse_encode, draw(1), atoms, size.k, **MODES[mode].settings)
    seconds: dict[str, list[float]] = {"gram": [], "code": [], "update": [], "pass": []}
    left = energy = 0.0
    with multiply_in(mode):
        run_once(draw(min(size.n, 256)), atoms.clone(), size, device, mode)  # compiles
        while len(seconds["pass"]) < repeats and sum(seconds["pass"]) < most_seconds:
            x = draw(size.n)
            seconds["gram"].append(time_once(code_one, device))
            stages, residual = run_once(x, atoms, size, device, mode)
            for stage, value in stages.items():
                seconds[stage].append(value)
            left, energy = left + sum_squares(residual), energy + sum_squares(x)
            del x, residual  # the next samples need their room
    floor = count_floor(size, ceilings, mode)
    shape = {"mode": mode, **vars(size), "atom_batch": size.atom_batch}
    shape |= {"power_iterations": POWER_ITERATIONS, "fraction_explained": 1 - left / energy}
    shape |= {"flops_per_s": ceilings.flops[mode], "bytes_per_s": ceilings.bandwidth}
    if device.type == "cuda":
        shape["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    rows = []
    for stage, taken in seconds.items():
        row = {"stage": stage} | shape | summarise(np.array(taken), size.n)
        rows.append(row | {"floor_s": floor[stage], "times_floor": row["median_s"] / floor[stage]})
    return rows


def run_once(
    x: Tensor, atoms: Tensor, size: PassSize, device: torch.device, mode: str
) -> tuple[dict[str, float], Tensor]:
    """Code samples and update the atoms in place; return stage seconds and the residual."""
    synchronise(device)
    started = time.perf_counter()
    codes = sparse_encode(x, atoms, size.k, **MODES[mode].settings)
    synchronise(device)
    coded = time.perf_counter()
    residual = update_atoms_(
        x, codes, atoms, atom_batch=size.atom_batch, power_iterations=POWER_ITERATIONS
    )
    synchronise(device)
    ended = time.perf_counter()
    seconds = {"code": coded - started, "update": ended - coded, "pass": ended - started}
    return seconds, residual


def _time_best(run: Callable[[], Any], device: torch.device) -> float:
    return min(time_once(run, device) for _ in range(CEILING_REPEATS + 1))
