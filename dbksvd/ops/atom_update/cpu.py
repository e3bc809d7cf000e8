"""Atom update on the CPU: numba kernels in threads, each on its own samples."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from dbksvd.ops.atom_update import kernels
from dbksvd.ops.ranks import ALONE, Ranks
from dbksvd.ops.threads import count_workers, map_in_threads

ROWS = 2048


def compute_residual(x: Tensor, indices: Tensor, values: Tensor, atoms: Tensor) -> Tensor:
    """Return X − Z D; see :func:`dbksvd.ops.atom_update.update.compute_residual`."""
    residual = x.clone(memory_format=torch.contiguous_format)
    weights, table = values.to(x.dtype).numpy(), atoms.to(x.dtype).numpy()

    def subtract_rows(first: int) -> None:
        last = min(first + ROWS, len(x))
        kernels.subtract_codes(residual.numpy(), indices.numpy(), weights, table, first, last)

    map_in_threads(subtract_rows, range(0, len(x), ROWS))
    return residual


def update_(
    residual: Tensor,
    indices: Tensor,
    values: Tensor,
    atoms: Tensor,
    order: Tensor,
    atom_batch: int,
    power_iterations: int,
    nonnegative: bool,
    ranks: Ranks = ALONE,
) -> None:
    """Update in place; see :func:`dbksvd.ops.atom_update.update_atoms_`."""
    R, Z, D = residual.numpy(), values.numpy(), atoms.numpy()
    turns = np.empty(len(D), np.int64)
    turns[order.numpy()] = np.arange(len(D))
    offsets, *entries = kernels.index_entries(indices.numpy(), Z, turns, atom_batch)
    with ThreadPoolExecutor(count_workers()) as pool:
        for number, batch in enumerate(order.split(atom_batch)):
            rows = slice(offsets[number], offsets[number + 1])
            _update_batch_(
                R,
                Z,
                D,
                batch.numpy(),
                [part[rows] for part in entries],
                pool,
                power_iterations,
                nonnegative,
                ranks,
            )


def _update_batch_(
    R: np.ndarray,
    Z: np.ndarray,
    D: np.ndarray,
    batch: np.ndarray,
    entries: list[np.ndarray],
    pool: ThreadPoolExecutor,
    power_iterations: int,
    nonnegative: bool,
    ranks: Ranks,
) -> None:
    samples, slots, owners = entries
    ends = kernels.cut_chunks(samples)
    chunks = len(ends) - 1
    z, new_z = np.empty(len(samples), R.dtype), np.empty(len(samples), R.dtype)
    G = np.empty((chunks, len(batch), R.shape[1]), R.dtype)
    S = np.empty((chunks, len(batch)), R.dtype)
    d = D[batch]
    new_d, along, moving = d.copy(), np.ones(len(batch), R.dtype), np.ones(len(batch), np.bool_)

    _run(
        pool,
        chunks,
        lambda *span: kernels.start_sums(R, Z, samples, slots, owners, z, new_z, ends, G, S, *span),
    )
    for iteration in range(power_iterations):
        sums = (G, S) if ranks.size == 1 else _sum_over_ranks(G, S, ranks)
        kernels.turn_atoms(*sums, d, new_d, along, moving, nonnegative)
        if iteration + 1 < power_iterations:
            _run(
                pool,
                chunks,
                lambda *span: kernels.step_sums(
                    R,
                    samples,
                    owners,
                    z,
                    new_z,
                    new_d,
                    along,
                    moving,
                    nonnegative,
                    ends,
                    G,
                    S,
                    *span,
                ),
            )
    _run(
        pool,
        chunks,
        lambda *span: kernels.finish(
            R,
            Z,
            samples,
            slots,
            owners,
            z,
            new_z,
            d,
            new_d,
            along,
            moving,
            nonnegative,
            ends,
            *span,
        ),
    )
    D[batch] = new_d


def _sum_over_ranks(G: np.ndarray, S: np.ndarray, ranks: Ranks) -> tuple[np.ndarray, np.ndarray]:
    """Return sums over the chunks of all ranks in the place of those over chunks."""
    total = np.concatenate([G.sum(axis=0), S.sum(axis=0)[:, None]], axis=1)
    ranks.sum_(torch.from_numpy(total))
    return np.ascontiguousarray(total[None, :, :-1]), np.ascontiguousarray(total[None, :, -1])


def _run(pool: ThreadPoolExecutor, chunks: int, kernel: Callable[[int, int], None]) -> None:
    """Call a kernel on all chunks, as many of them in one call as there are for each worker."""
    workers = min(count_workers(), chunks)
    if workers <= 1:
        kernel(0, chunks)
        return
    bounds = [chunks * worker // workers for worker in range(workers + 1)]
    list(pool.map(kernel, bounds[:-1], bounds[1:]))
