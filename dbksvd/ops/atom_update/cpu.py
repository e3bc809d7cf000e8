"""Atom update on the CPU: numba kernels in threads, first over atoms, then over samples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from dbksvd.ops.atom_update import kernels
from dbksvd.ops.threads import count_workers, map_in_threads

# Pieces of work for each thread: more than one balances atoms of very different use.
PIECES = 4
ROWS = 2048


def compute_residual(x: Tensor, indices: Tensor, values: Tensor, atoms: Tensor) -> Tensor:
    """Return X − Z D."""
    residual = x.clone(memory_format=torch.contiguous_format)
    arrays = residual.numpy(), indices.numpy(), values.numpy(), atoms.to(x.dtype).numpy()

    def subtract_rows(first: int) -> None:
        kernels.subtract_codes(*arrays, first, min(first + ROWS, len(x)))

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
) -> None:
    """Update in place; see :func:`dbksvd.ops.atom_update.update_atoms_`.

    No two threads write the same atom in the first phase of a batch, nor the same sample in the
    second, and every sum has one fixed order: the bytes do not depend on the number of threads.
    """
    R, Z, D = residual.numpy(), values.numpy(), atoms.numpy()
    entries = kernels.index_entries(indices.numpy(), Z, len(D))
    offsets = entries[0]
    workers = count_workers()
    pieces = 1 if workers == 1 else PIECES * workers
    bounds = np.linspace(0, len(R), pieces + 1).astype(np.int64)
    pool = nullcontext() if workers == 1 else ThreadPoolExecutor(workers)
    with pool:
        run = map if workers == 1 else pool.map  # type: ignore[union-attr]
        for batch in np.array_split(order.numpy(), range(atom_batch, len(D), atom_batch)):
            starts = np.concatenate([[0], np.cumsum(offsets[batch + 1] - offsets[batch])])
            new_d = np.empty((len(batch), D.shape[1]), D.dtype)
            new_z = np.empty(starts[-1], Z.dtype)

            def improve(b, batch=batch, starts=starts, new_d=new_d, new_z=new_z):  # type: ignore[no-untyped-def]
                kernels.improve_atoms(
                    *(R, Z, D, batch[b], *entries, starts[b]),
                    *(power_iterations, nonnegative, new_d[b], new_z),
                )

            def apply(piece, batch=batch, starts=starts, new_d=new_d, new_z=new_z):  # type: ignore[no-untyped-def]
                limits = bounds[piece], bounds[piece + 1]
                kernels.apply_atoms(R, Z, D, batch, *entries, starts, new_d, new_z, *limits)

            size = -(-len(batch) // pieces)
            list(run(improve, [slice(b, b + size) for b in range(0, len(batch), size)]))
            list(run(apply, range(pieces)))
            D[batch] = new_d
