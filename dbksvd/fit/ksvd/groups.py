"""Matryoshka groups: each group codes and learns what the earlier groups leave.

With one group this is plain coding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import torch

from dbksvd.base.codes import SparseCodes, concatenate_codes
from dbksvd.base.shapes import Activations, Atoms
from dbksvd.dictionaries.dictionary import PursuitSettings, encode_with
from dbksvd.ops.atom_update.update import compute_residual


def slice_groups(groups: Sequence[int]) -> Iterator[slice]:
    """Yield the rows of the atoms of each group."""
    start = 0
    for size in groups:
        yield slice(start, start + size)
        start += size


def encode_group(
    residual: Activations, atoms: Atoms, settings: PursuitSettings, *, implementation: str
) -> tuple[SparseCodes, Activations]:
    """Code one group; return its codes and what it leaves.

    Parameters
    ----------
    residual : tensor of shape (n, d)
        What the earlier groups leave of the samples.
    atoms : tensor of shape (m, d)
        Unit atoms of the group.
    settings : PursuitSettings
        How the group is coded.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    """
    codes = encode_with(residual, atoms, settings, implementation=implementation)
    return codes, compute_residual(residual, codes, atoms, implementation=implementation)


def encode_groups(
    x: Activations,
    atoms: Atoms,
    groups: Sequence[int],
    settings: PursuitSettings,
    *,
    implementation: str = "auto",
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
    """
    parts = []
    residual = x
    for rows in slice_groups(groups):
        codes, residual = encode_group(
            residual, atoms[rows], settings, implementation=implementation
        )
        parts.append(codes)
    return join_groups(parts), residual


def join_groups(parts: Sequence[SparseCodes]) -> SparseCodes:
    """Return the codes of the groups side by side, counted over all atoms, used slots first."""
    n_atoms = sum(part.n_atoms for part in parts)
    if len(parts) == 1:
        return parts[0]
    starts = accumulate((part.n_atoms for part in parts), initial=0)
    values = torch.cat([part.values for part in parts], 1)
    indices = torch.cat(
        [part.indices + start for part, start in zip(parts, starts, strict=False)], 1
    )
    order = (values == 0).to(torch.int8).argsort(dim=1, stable=True)
    values, indices = values.gather(1, order), indices.gather(1, order)
    return SparseCodes(indices.masked_fill(values == 0, 0), values, n_atoms)


def encode_in_blocks(
    blocks: Iterator[Activations], encode: Callable[[Activations], SparseCodes]
) -> SparseCodes:
    """Return the codes of blocks of samples as one."""
    return concatenate_codes([encode(block).to("cpu") for block in blocks])
