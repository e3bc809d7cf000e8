"""What a learner is given, a point of its curve, and how its atoms are scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from benchmarks.data import Activations
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.fit.measure import measure_explained


@dataclass(frozen=True)
class Problem:
    """What everyone is given: data, sizes, seconds, seed."""

    data: Activations
    m: int
    k: int
    budget: float
    seed: int


@dataclass(frozen=True)
class Point:
    """Variance explained on held-out samples after some seconds of learning."""

    seconds: float
    fve: float
    samples: int
    stop: str = ""


def centre_rows(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return centred rows, and m of them at unit norm to begin from."""
    x = problem.data.train.rows - problem.data.train.mean
    generator = torch.Generator().manual_seed(problem.seed)
    return x, F.normalize(x[torch.randperm(len(x), generator=generator)[: problem.m]], dim=1)


def score_atoms(problem: Problem, atoms: Tensor) -> float:
    """Return held-out variance explained by our orthogonal matching pursuit over `atoms`.

    Atoms that are zero or not finite are left out.
    """
    norms = torch.linalg.vector_norm(atoms, dim=1)
    atoms = F.normalize(atoms[torch.isfinite(norms) & (norms > 1e-6)], dim=1)
    settings = PursuitSettings(min(problem.k, len(atoms)), "omp")
    dictionary = Dictionary(atoms, problem.data.train.mean, settings)
    return measure_explained(dictionary, problem.data.heldout)
