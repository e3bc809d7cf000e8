"""Kernels compiled before the clock of a fit starts, by one small call of each.

numba and Triton compile a kernel when it is first called with arguments of new types. In a fresh
clone that takes longer than many a fit, and is no part of what a method costs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch.nn.functional import normalize

from dbksvd.dictionaries.dictionary import PursuitSettings, encode_with
from dbksvd.ops.atom_update.update import compute_residual, update_atoms_
from dbksvd.ops.ranks import ALONE, Ranks

# Samples, atoms, width and non-zeros of a call on the CPU: its kernels are the same for all sizes.
SMALL_ROWS, SMALL_ATOMS, SMALL_WIDTH, SMALL_K = 16, 8, 4, 2
# Samples of a call on CUDA, where kernels are compiled for sizes: as many programs as in a fit.
CUDA_ROWS = 1 << 13


@dataclass(frozen=True)
class KernelUse:
    """What a fit calls on float32 samples: a pursuit, the residual, and perhaps updates.

    Parameters
    ----------
    pursuit : PursuitSettings
        How samples are coded; its threshold does not matter, and of penalties whether there are.
    n_atoms, width : int
        Atoms that are coded with, and their width.
    atom_batch : int or None
        Atoms that are updated together; None where no atom is updated.
    power_iterations : int
        Power iterations of an update.
    """

    pursuit: PursuitSettings
    n_atoms: int
    width: int
    atom_batch: int | None = None
    power_iterations: int = 1


def warm_up(
    uses: Iterable[KernelUse],
    device: torch.device,
    *,
    implementation: str = "auto",
    ranks: Ranks = ALONE,
) -> None:
    """Call each kernel once, on samples drawn for that; once in a process.

    Parameters
    ----------
    uses : iterable of KernelUse
        What the fit will call.
    device : torch.device
        Where it will compute.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    ranks : Ranks
        The processes that fit together; all do the same.
    """
    device = torch.device(device)
    for use in uses:
        _call_kernels(use if device.type == "cuda" else _shrink(use), device, implementation, ranks)


def _shrink(use: KernelUse) -> KernelUse:
    pursuit = replace(
        use.pursuit,
        k=SMALL_K,
        threshold=0.0,
        penalties=None if use.pursuit.penalties is None else (0.0,) * SMALL_ATOMS,
    )
    atom_batch = None if use.atom_batch is None else SMALL_ATOMS
    return KernelUse(pursuit, SMALL_ATOMS, SMALL_WIDTH, atom_batch, use.power_iterations)


@cache
def _call_kernels(use: KernelUse, device: torch.device, implementation: str, ranks: Ranks) -> None:
    generator = torch.Generator().manual_seed(0)
    count = SMALL_ROWS if device.type == "cpu" else CUDA_ROWS
    rows = torch.randn(count, use.width, generator=generator, dtype=torch.float32).to(device)
    atoms = torch.randn(use.n_atoms, use.width, generator=generator, dtype=torch.float32)
    atoms = normalize(atoms, dim=1).to(device)
    most = min(use.pursuit.k, use.n_atoms, use.width)
    codes = encode_with(rows, atoms, replace(use.pursuit, k=most), implementation=implementation)
    residual = compute_residual(rows, codes, atoms, implementation=implementation)
    if use.atom_batch is not None:
        update_atoms_(
            *(rows, codes, atoms),
            atom_batch=use.atom_batch,
            power_iterations=use.power_iterations,
            nonnegative=use.pursuit.nonnegative,
            residual=residual,
            implementation=implementation,
            ranks=ranks,
        )
    if device.type == "cuda":
        torch.cuda.synchronize(device)
