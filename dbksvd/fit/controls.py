"""Controls that learn little or nothing: what a score must beat to mean something."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from dbksvd.dictionary import Dictionary, PursuitSettings
from dbksvd.fit.registry import FitTask
from dbksvd.fit.result import FitResult

PCA_ROWS = 1 << 20


def fit(task: FitTask) -> FitResult:
    """Make a random or a PCA dictionary, coded by the same pursuit as DB-KSVD.

    ``random``: isotropic unit vectors. ``pca``: the leading principal directions, at most d; both
    signs of a direction are one atom.
    """
    started = time.perf_counter()
    make = {"random": _draw_random_atoms, "pca": _find_principal_atoms}
    atoms = make[task.settings["algorithm"]](task)
    settings = PursuitSettings(k=task.k, nonnegative=task.settings["nonnegative"])
    dictionary = Dictionary(atoms, task.train.mean, settings, task.metadata)
    seconds = time.perf_counter() - started
    summary = {"seconds": seconds, "samples_seen": 0, "iterations": 0}
    return FitResult(dictionary, [{"seconds": seconds, "samples_seen": 0}], "closed form", summary)


def _draw_random_atoms(task: FitTask) -> Tensor:
    generator = torch.Generator().manual_seed(task.seed)
    atoms = torch.randn(task.n_atoms, task.train.width, generator=generator)
    return torch.nn.functional.normalize(atoms, dim=1)


def _find_principal_atoms(task: FitTask) -> Tensor:
    if task.n_atoms > task.train.width:
        raise ValueError(
            f"n_atoms: expected at most the width {task.train.width} for pca, got {task.n_atoms}"
        )
    centred = task.train.read(0, min(PCA_ROWS, len(task.train))) - task.train.mean
    covariance = (centred.T @ centred).double() / len(centred)
    _, directions = torch.linalg.eigh(covariance)
    return directions.flip(1)[:, : task.n_atoms].T.contiguous().float()
