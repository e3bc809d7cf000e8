"""The choice of ITDA's atoms among the activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dbksvd.base.clock import read_clock
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.fit.task import FitResult, FitTask
from dbksvd.fit.warm_up import KernelUse, warm_up
from dbksvd.ops.atom_update.update import compute_residual
from dbksvd.ops.pursuit.encode import sparse_encode

# Rounds in which atoms join, and the most samples that one looks at.
ROUNDS = 32
MOST_ROWS = 1 << 15
# Samples nearer to an atom than this do not become another.
LARGEST_COSINE = 0.9


def choose_all(task: FitTask) -> FitResult:
    """Choose the atoms of a dictionary; see :func:`dbksvd.fit.baselines.itda.fit`."""
    settings = PursuitSettings(
        k=task.k, method=task.settings.pursuit, nonnegative=task.settings.nonnegative
    )
    counts = {max(1, task.n_atoms * number // ROUNDS) for number in range(1, ROUNDS)}
    warm_up((KernelUse(settings, count, task.train.width) for count in counts), task.device)
    started = read_clock(task.device)
    atoms = torch.empty(0, task.train.width, dtype=torch.float32, device=task.device)
    log: list[dict[str, Any]] = []
    seen = 0
    stretch = max(len(task.train) // ROUNDS, 1)
    for number in tqdm(range(ROUNDS), desc="ITDA", unit="round"):
        count = task.n_atoms * (number + 1) // ROUNDS - len(atoms)
        start = min(number * stretch, len(task.train) - 1)
        stop = min(start + min(stretch, MOST_ROWS), len(task.train))
        x = (task.train.read(start, stop) - task.train.mean).to(task.device)
        atoms = torch.cat([atoms, choose_atoms(x, atoms, count, settings)])
        seen += len(x)
        log.append(
            {
                "iteration": number + 1,
                "n_atoms": len(atoms),
                "samples_seen": seen,
                "seconds": read_clock(task.device) - started,
            }
        )
    if len(atoms) < task.n_atoms:
        raise ValueError(
            f"n_atoms: expected at most {len(atoms)}, the different samples that one pass over "
            f"{len(task.train)} found, got {task.n_atoms}"
        )
    dictionary = Dictionary(atoms.cpu(), task.train.mean, settings, task.metadata)
    summary = {"seconds": log[-1]["seconds"], "samples_seen": seen, "iterations": ROUNDS}
    return FitResult(dictionary, log, "pass", summary)


def choose_atoms(x: Tensor, atoms: Tensor, count: int, settings: PursuitSettings) -> Tensor:
    """Return at most `count` unit samples that `atoms` reconstruct worst, no two alike.

    Parameters
    ----------
    x : tensor of shape (n, d)
        Centred samples.
    atoms : tensor of shape (m, d)
        Unit atoms so far; m may be 0, then the first samples are taken.
    count : int
        Atoms to find.
    settings : PursuitSettings
        How `x` is coded.
    """
    norms = torch.linalg.vector_norm(x, dim=1)
    relative = torch.ones_like(norms)
    if len(atoms):
        codes = sparse_encode(
            x,
            atoms,
            min(settings.k, len(atoms), x.shape[1]),
            method=settings.method,
            nonnegative=settings.nonnegative,
        )
        residual = compute_residual(x, codes, atoms)
        relative = torch.linalg.vector_norm(residual, dim=1) / norms
    relative = torch.where(norms > 0, relative, -1.0)
    chosen = atoms
    for row in torch.argsort(relative, descending=True, stable=True).tolist():
        if len(chosen) - len(atoms) == count or relative[row] < 0:
            break
        direction = x[row : row + 1] / norms[row]
        if not len(chosen) or (chosen @ direction.T).abs().max() <= LARGEST_COSINE:
            chosen = torch.cat([chosen, direction])
    return chosen[len(atoms) :]
