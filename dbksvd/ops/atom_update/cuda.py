"""Atom update on CUDA by Triton: 2 · power_iterations + 1 launches a batch, without waiting.

Rows of R that do not fit on chip (:func:`find_widest`) are left to batched torch.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from dbksvd.ops.atom_update import batched, triton_kernels
from dbksvd.ops.ranks import ALONE, Ranks

# Widest row of R that a program holds, with the old and the new atom beside it.
WIDEST_BYTES = 1 << 16
# Bytes of rows that a program has in hand at once while it sums.
TILE_BYTES = 1 << 15
# Stretches that the entries of a batch are cut into: a few for each of the 132 multiprocessors of
# the largest devices. A constant, so that results do not depend on the device.
PROGRAMS = 1056
# Fewest entries worth a program, and most rows in hand at once; a power of two.
LEAST_ENTRIES = 32
# Columns of a sample that a program subtracts codes from.
COLUMNS = 1024


def compute_residual(x: Tensor, indices: Tensor, values: Tensor, atoms: Tensor) -> Tensor:
    """Return X − Z D; see :func:`dbksvd.ops.atom_update.update.compute_residual`."""
    x = x.contiguous()
    n, d = x.shape
    out = torch.empty_like(x)
    block = min(triton.next_power_of_2(d), COLUMNS)
    with torch.cuda.device_of(x):
        triton_kernels.subtract_codes[(n, triton.cdiv(d, block))](
            x,
            indices.contiguous(),
            values.to(x.dtype).contiguous(),
            atoms.to(x.dtype).contiguous(),
            out,
            indices.shape[1],
            d,
            BLOCK=block,
        )
    return out


def find_widest(device: torch.device) -> int:
    """Return the bytes of the widest row of which a program has two in its shared memory."""
    if device.type != "cuda":  # the interpreter
        return WIDEST_BYTES
    properties: Any = torch.cuda.get_device_properties(device)  # torch's stub lacks the name
    shared = properties.shared_memory_per_block_optin
    return WIDEST_BYTES if shared > 2 * WIDEST_BYTES else WIDEST_BYTES // 2


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
    settings = (order, atom_batch, power_iterations, nonnegative, ranks)
    row_bytes = triton.next_power_of_2(atoms.shape[1]) * atoms.element_size()
    if row_bytes > find_widest(atoms.device):
        batched.update_(residual, indices, values, atoms, *settings)
        return
    R = residual.contiguous()
    with torch.cuda.device_of(R):
        _update_rows_(R, indices, values, atoms, *settings)
    if R is not residual:
        residual.copy_(R)


def _update_rows_(
    R: Tensor,
    indices: Tensor,
    values: Tensor,
    atoms: Tensor,
    order: Tensor,
    atom_batch: int,
    power_iterations: int,
    nonnegative: bool,
    ranks: Ranks,
) -> None:
    n, k = indices.shape
    m, d = atoms.shape
    order = order.to(R.device)
    turns, by_turn, sorted_turns, by_sample, offsets = sort_entries(
        indices, values, order, atom_batch
    )
    # a sample has an atom once
    most = n * min(k, atom_batch)
    programs = max(1, min(PROGRAMS, triton.cdiv(most, LEAST_ENTRIES)))
    new_atoms, along = R.new_empty(atom_batch, d), R.new_empty(atom_batch)
    moved = torch.empty(atom_batch, dtype=torch.int32, device=R.device)
    sums, overlaps = R.new_empty(programs + atom_batch, d), R.new_empty(programs + atom_batch)
    block = triton.next_power_of_2(d)
    row_bytes = block * R.element_size()
    tile = min(max(1, TILE_BYTES // row_bytes), LEAST_ENTRIES)
    shape = {"NONNEGATIVE": nonnegative, "BLOCK": block}
    row_warps = min(max(1, row_bytes >> 11), 16)
    for low in range(0, m, atom_batch):
        high = min(low + atom_batch, m)
        for iteration in range(power_iterations):
            shape["FIRST"] = iteration == 0
            triton_kernels.sum_runs[(programs,)](
                *(R, values, by_turn, sorted_turns, offsets, new_atoms, along, moved),
                *(sums, overlaps, low, high, k, d),
                TILE=tile,
                num_warps=8,
                **shape,
            )
            if ranks.size > 1:
                g = R.new_empty(high - low, d)
                triton_kernels.add_runs[(high - low,)](
                    *(sums, overlaps, offsets, atoms, order, g, low, high, programs, d),
                    num_warps=row_warps,
                    BLOCK=block,
                )
                turn_atoms_(
                    *(ranks.sum_(g), atoms[order[low:high]]),
                    new_atoms[: high - low],
                    along[: high - low],
                    moved[: high - low],
                    nonnegative=nonnegative,
                    is_first=iteration == 0,
                )
                continue
            triton_kernels.turn_atoms[(high - low,)](
                *(sums, overlaps, offsets, atoms, order, new_atoms, along, moved),
                *(low, high, programs, d),
                num_warps=row_warps,
                **shape,
            )
        del shape["FIRST"]
        triton_kernels.finish_samples[(programs,)](
            *(R, values, by_sample, turns, offsets, atoms, order, new_atoms, along, moved),
            *(low, high, k, d),
            num_warps=row_warps,
            **shape,
        )
        atoms.index_copy_(0, order[low:high], new_atoms[: high - low])


def turn_atoms_(
    g: Tensor,
    old: Tensor,
    new_atoms: Tensor,
    along: Tensor,
    moved: Tensor,
    *,
    nonnegative: bool,
    is_first: bool,
) -> None:
    """Do what the kernel `turn_atoms` does, for sums over ranks.

    Parameters
    ----------
    g : tensor of shape (b, d)
        ``Eᵀz'`` of each atom, summed over ranks.
    old : tensor of shape (b, d)
        Atoms before the update.
    new_atoms : tensor of shape (b, d)
        Atoms d' so far, changed in place.
    along : tensor of shape (b,)
        Products of old and new atoms, changed in place.
    moved : int32 tensor of shape (b,)
        1 for an atom that has changed in any iteration, changed in place.
    nonnegative : bool
        Whether coefficients must be at least 0; otherwise atoms keep their half space.
    is_first : bool
        Whether this is the first power iteration.
    """
    if is_first:
        new_atoms.copy_(old)
        along.fill_(1)
        moved.zero_()
    norm = torch.linalg.vector_norm(g, dim=1, keepdim=True)
    turns = norm > 0
    new = g / norm.masked_fill(~turns, 1)
    cosine = (new * old).sum(dim=1, keepdim=True)
    if not nonnegative:
        sign = torch.where(cosine < 0, -1.0, 1.0).to(g.dtype)
        new, cosine = new * sign, cosine * sign
    new_atoms.copy_(torch.where(turns, new, new_atoms))
    along.copy_(torch.where(turns, cosine, along.unsqueeze(1)).squeeze(1))
    moved.bitwise_or_(turns.squeeze(1).to(moved.dtype))


def sort_entries(
    indices: Tensor, values: Tensor, order: Tensor, atom_batch: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sort the used slots for the update, on the device and without waiting for it.

    Parameters
    ----------
    indices, values : tensors of shape (n, k)
        Codes.
    order : int64 tensor of shape (m,)
        Atoms in the order of the update, on the device of the codes.
    atom_batch : int
        Atoms a batch.

    Returns
    -------
    tuple
        Turns of all slots (n · k,), m where unused; entries sorted by turn and then by sample, and
        their turns; entries sorted by batch and then by sample; offsets (m + 1,) of the turns in
        the sorted entries. Unused slots come last.
    """
    m = len(order)
    turn = torch.empty_like(order).scatter_(0, order, torch.arange(m, device=order.device))
    turns = torch.where(values != 0, turn[indices], m).flatten().int()
    sorted_turns, by_turn = torch.sort(turns, stable=True)
    batches = torch.where(turns < m, turns // atom_batch, m)
    by_sample = by_turn if atom_batch == 1 else torch.sort(batches, stable=True).indices
    marks = torch.arange(m + 1, dtype=torch.int32, device=order.device)
    return turns, by_turn, sorted_turns, by_sample, torch.searchsorted(sorted_turns, marks)
