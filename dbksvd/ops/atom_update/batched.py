"""Atom update in plain torch, a batch of atoms at once; runs on the CPU and on CUDA.

Legend: see :mod:`dbksvd.ops.atom_update.reference`. Sums over the samples of an atom are
``embedding_bag``s: segmented, weighted, without atomics, so that a run repeats itself. The host
waits for the device once for the offsets and once for each batch of atoms.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dbksvd.ops.memory import map_blocks
from dbksvd.ops.ranks import ALONE, Ranks

# Elements of gathered rows held at once.
GATHER_ELEMENTS = 1 << 26


def compute_residual(x: Tensor, indices: Tensor, values: Tensor, atoms: Tensor) -> Tensor:
    """Return X − Z D; see :func:`dbksvd.ops.atom_update.update.compute_residual`."""
    weights = values.to(x.dtype)
    return x - F.embedding_bag(indices, atoms.to(x.dtype), per_sample_weights=weights, mode="sum")


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
    m, k = len(atoms), indices.shape[1]
    # atoms renumbered in the order of their turns: a batch is one stretch of the sorted entries
    turn = torch.empty_like(order).scatter_(0, order, torch.arange(m)).to(residual.device)
    turns = torch.where(values != 0, turn[indices], m).flatten()
    turns, entries = torch.sort(turns, stable=True)
    counts = torch.bincount(turns, minlength=m + 1)[:m]
    offsets = F.pad(counts.cumsum(0), (1, 0))
    limits = offsets[[*range(0, m, atom_batch), m]].tolist()
    flat = values.view(-1)
    for number, low in enumerate(range(0, m, atom_batch)):
        batch = order[low : low + atom_batch].to(residual.device)
        part = entries[limits[number] : limits[number + 1]]
        if len(part) == 0 and ranks.size == 1:
            continue
        rows = part // k
        owner = turns[limits[number] : limits[number + 1]] - low
        starts = offsets[low : low + len(batch)] - limits[number]
        z, d = flat[part], atoms[batch]
        new_d, new_z = improve_atoms(
            residual, rows, owner, starts, z, d, power_iterations, nonnegative, ranks
        )
        subtract_change_(residual, rows, owner, z, d, new_z, new_d)
        flat[part] = new_z
        atoms[batch] = new_d


def sum_segments(table: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of rows of each segment, shape (segments, d).

    Parameters
    ----------
    table : tensor of shape (n, d)
        Rows.
    rows : int64 tensor of shape (entries,)
        Row of each entry.
    starts : int64 tensor of shape (segments,)
        First entry of each segment.
    weights : tensor of shape (entries,)
        Weight of each entry.
    """
    return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights)


def multiply_rows(table: Tensor, rows: Tensor, owner: Tensor, d: Tensor) -> Tensor:
    """Return the product of a row and an atom for each entry, in blocks of bounded memory.

    Parameters
    ----------
    table : tensor of shape (n, d)
        Rows.
    rows, owner : int64 tensors of shape (entries,)
        Row and atom of each entry.
    d : tensor of shape (b, d)
        Atoms.
    """
    if len(rows) == 0:
        return table.new_empty(0)
    parts = map_blocks(
        lambda block: multiply_block(rows[block], owner[block], table, d),
        len(rows),
        max(1, GATHER_ELEMENTS // table.shape[1]),
        f"n={len(table)}, d={table.shape[1]}, {len(rows)} entries",
    )
    return torch.cat(parts)


def multiply_block(rows: Tensor, owner: Tensor, table: Tensor, d: Tensor) -> Tensor:
    """Do what :func:`multiply_rows` does for one block of entries."""
    return (table[rows] * d[owner]).sum(1)


def improve_atoms(
    R: Tensor,
    rows: Tensor,
    owner: Tensor,
    starts: Tensor,
    z: Tensor,
    d: Tensor,
    power_iterations: int,
    nonnegative: bool,
    ranks: Ranks,
) -> tuple[Tensor, Tensor]:
    """Return new atoms (b, d) and coefficients (entries,) of a batch, by power iterations.

    Parameters
    ----------
    R : tensor of shape (n, d)
        Residual.
    rows, owner : int64 tensors of shape (entries,)
        Sample of each entry, and the place of its atom in the batch; sorted by atom.
    starts : int64 tensor of shape (b,)
        First entry of each atom.
    z : tensor of shape (entries,)
        Coefficients before.
    d : tensor of shape (b, d)
        Atoms before.
    power_iterations, nonnegative, ranks
        As of :func:`dbksvd.ops.atom_update.update.update_atoms_`.
    """
    new_d, new_z = d, z
    for _ in range(power_iterations):
        overlap = torch.segment_reduce(
            new_z * z, "sum", offsets=F.pad(starts, (0, 1), value=len(z)), initial=0
        )
        g = ranks.sum_(sum_segments(R, rows, starts, new_z) + overlap.unsqueeze(1) * d)
        norm = torch.linalg.vector_norm(g, dim=1, keepdim=True)
        trial_d = g / norm.clamp(min=torch.finfo(g.dtype).tiny)
        trial_z = multiply_rows(R, rows, owner, trial_d) + z * (d * trial_d).sum(1)[owner]
        if nonnegative:
            trial_z = trial_z.clamp(min=0)
        good = norm.squeeze(1) > 0
        new_d = torch.where(good.unsqueeze(1), trial_d, new_d)
        new_z = torch.where(good[owner], trial_z, new_z)
    if not nonnegative:
        sign = torch.where((new_d * d).sum(1) < 0, -1.0, 1.0).to(d.dtype)
        new_d, new_z = new_d * sign.unsqueeze(1), new_z * sign[owner]
    return new_d, new_z


def subtract_change_(
    R: Tensor, rows: Tensor, owner: Tensor, z: Tensor, d: Tensor, new_z: Tensor, new_d: Tensor
) -> None:
    """Set R[rows] ← R[rows] + z d − z' d', entries of one sample summed in a fixed order.

    Parameters
    ----------
    R, rows, owner, z, d
        As of :func:`improve_atoms`.
    new_z : tensor of shape (entries,)
        Coefficients z' after the update.
    new_d : tensor of shape (b, d)
        Atoms d' after the update.
    """
    sorted_rows, order = torch.sort(rows, stable=True)
    samples, counts = torch.unique_consecutive(sorted_rows, return_counts=True)
    starts = F.pad(2 * counts.cumsum(0), (1, 0))[:-1]
    pick = owner[order]
    places = torch.stack([pick, pick + len(d)], 1).flatten()
    weights = torch.stack([z[order], -new_z[order]], 1).flatten()
    R[samples] += sum_segments(torch.cat([d, new_d]), places, starts, weights)
