"""Atoms of the controls."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise

import torch
from torch import Tensor

from dbksvd.base.clock import read_clock
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.fit.task import FitResult, FitTask

PCA_ROWS = 1 << 20
KMEANS_BATCH = 1 << 13


def make_control(task: FitTask) -> FitResult:
    """Return the control that the settings name; see :func:`dbksvd.fit.baselines.controls.fit`."""
    if task.settings.algorithm == "kmeans":
        import_module("sklearn.cluster")  # seconds that are no part of the fit
    started = read_clock(task.device)
    make = {
        "random": _draw_random_atoms,
        "identity": _take_axes,
        "pca": _find_principal_atoms,
        "kmeans": _find_centre_atoms,
    }
    atoms = make[task.settings.algorithm](task)
    settings = PursuitSettings(
        k=task.k, method=task.settings.pursuit, nonnegative=task.settings.nonnegative
    )
    dictionary = Dictionary(atoms, task.train.mean, settings, task.metadata)
    seconds = read_clock(task.device) - started
    is_learned = task.settings.algorithm == "kmeans"
    seen = len(task.train) if is_learned else 0
    summary = {"seconds": seconds, "samples_seen": seen, "iterations": int(is_learned)}
    log = [{"seconds": seconds, "samples_seen": seen}]
    return FitResult(dictionary, log, "pass" if is_learned else "closed form", summary)


def _draw_random_atoms(task: FitTask) -> Tensor:
    generator = torch.Generator().manual_seed(task.seed)
    shape = (task.n_atoms, task.train.width)
    atoms = torch.randn(shape, generator=generator, dtype=torch.float32)
    return torch.nn.functional.normalize(atoms, dim=1)


def _check_width(task: FitTask) -> None:
    if task.n_atoms > task.train.width:
        raise ValueError(
            f"n_atoms: expected at most the width {task.train.width} for "
            f"{task.settings.algorithm}, got {task.n_atoms}"
        )


def _take_axes(task: FitTask) -> Tensor:
    _check_width(task)
    return torch.eye(task.n_atoms, task.train.width, dtype=torch.float32)


def _find_principal_atoms(task: FitTask) -> Tensor:
    _check_width(task)
    centred = task.train.read(0, min(PCA_ROWS, len(task.train))) - task.train.mean
    covariance = (centred.T @ centred).double() / len(centred)
    _, directions = torch.linalg.eigh(covariance)
    return directions.flip(1)[:, : task.n_atoms].T.contiguous().float()


def _find_centre_atoms(task: FitTask) -> Tensor:
    from sklearn.cluster import MiniBatchKMeans  # loaded already, before the clock started

    n, batch = len(task.train), max(KMEANS_BATCH, 4 * task.n_atoms)
    if n < task.n_atoms:
        raise ValueError(f"n_atoms: expected at most the {n} training samples, got {task.n_atoms}")
    means = MiniBatchKMeans(task.n_atoms, n_init=1, random_state=task.seed)
    # A last batch that is smaller joins the one before: k-means starts from a batch of samples.
    stops = [*range(batch, n - batch + 1, batch), n]
    for start, stop in pairwise([0, *stops]):
        centred = task.train.read(start, stop) - task.train.mean
        means.partial_fit(torch.nn.functional.normalize(centred, dim=1).numpy())
    return torch.nn.functional.normalize(torch.from_numpy(means.cluster_centers_).float(), dim=1)
