"""Matryoshka groups: each group codes and learns what the earlier groups leave.

With one group this is plain coding and one plain dictionary update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dbksvd.base.codes import SparseCodes, concatenate_codes
from dbksvd.base.shapes import Activations, Atoms
from dbksvd.dictionaries.dictionary import PursuitSettings, encode_with
from dbksvd.ops.atom_update.update import compute_residual

Update = Callable[[Tensor, SparseCodes, Tensor], None]


def slice_groups(groups: Sequence[int]) -> Iterator[slice]:
    """Yield the rows of the atoms of each group."""
    start = 0
    for size in groups:
        yield slice(start, start + size)
        start += size


def encode_groups(
    x: Activations,
    atoms: Atoms,
    groups: Sequence[int],
    settings: PursuitSettings,
    *,
    implementation: str = "auto",
    update: Update | None = None,
) -> tuple[SparseCodes, Activations]:
    """Code each group on the residual of the earlier ones; return codes and the last residual.

    Parameters
    ----------
    x : tensor of shape (n, d)
        Samples, the bias subtracted.
    atoms : tensor of shape (m, d)
        Unit atoms of all groups, one after another.
    groups : sequence of int
        Sizes of the groups.
    settings : PursuitSettings
        How a group is coded; k is the budget of one group.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    update : callable, optional
        Called with residual, codes and atoms of a group once it is coded; changes them in place
        before the next group is coded.
    """
    parts = []
    residual = x
    for rows in slice_groups(groups):
        part = atoms[rows]
        codes = encode_with(residual, part, settings, implementation=implementation)
        residual = compute_residual(residual, codes, part, implementation=implementation)
        if update is not None:
            update(residual, codes, part)
        parts.append(SparseCodes(codes.indices + rows.start, codes.values, len(atoms)))
    return _close_ranks(parts), residual


def _close_ranks(parts: list[SparseCodes]) -> SparseCodes:
    """Put the codes of the groups side by side, the used slots first."""
    if len(parts) == 1:
        return parts[0]
    values = torch.cat([part.values for part in parts], 1)
    order = (values == 0).to(torch.int8).argsort(dim=1, stable=True)
    values = values.gather(1, order)
    indices = torch.cat([part.indices for part in parts], 1).gather(1, order)
    return SparseCodes(indices.masked_fill(values == 0, 0), values, parts[0].n_atoms)


def encode_in_blocks(
    blocks: Iterator[Activations], encode: Callable[[Activations], SparseCodes]
) -> SparseCodes:
    """Return the codes of blocks of samples as one."""
    return concatenate_codes([encode(block).to("cpu") for block in blocks])
