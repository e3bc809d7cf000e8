"""What the loop of a fit is given, and what it returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dbksvd.base.shapes import Atoms
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.fit.ksvd.calibration import MOST_TIMES_MEAN
from dbksvd.fit.ksvd.schedule import split_groups
from dbksvd.fit.ksvd.settings import DBKSVDSettings
from dbksvd.ops.ranks import ALONE, Ranks


@dataclass(frozen=True)
class FitJob:
    """What a fit is given, beside its samples.

    Parameters
    ----------
    settings : DBKSVDSettings
        What the fit does. Its device and implementation are those that were asked for.
    n_atoms, k, seed : int
        Atoms of the dictionary, non-zeros of a sample, seed of all randomness.
    device : torch.device
        Where to compute.
    implementation : str
        Who computes there.
    atoms : tensor of shape (n_atoms, d), optional
        Warm start, instead of the setting ``init``.
    checkpoint : Path, optional
        Folder for unfinished work.
    progress : bool
        Whether to show a progress bar.
    ranks : Ranks
        The processes that fit together.
    """

    settings: DBKSVDSettings
    n_atoms: int
    k: int
    seed: int
    device: torch.device
    implementation: str
    atoms: Atoms | None = None
    checkpoint: Path | None = None
    progress: bool = False
    ranks: Ranks = ALONE

    def identify(self) -> dict[str, Any]:
        """Return what a checkpoint must agree on, beside the data and the steps."""
        chosen = self.settings
        pursuits = make_pursuits(chosen, self.n_atoms, self.k)
        return {
            "settings": [asdict(pursuit) for pursuit in pursuits],
            "update": [chosen.atom_batch, chosen.power_iterations],
            "replacement": [chosen.min_usage, chosen.max_cosine],
            "stopping": [chosen.max_seconds, chosen.tol, chosen.heldout_every],
            "init": chosen.init if self.atoms is None else self.atoms.double().sum().item(),
            "seed": self.seed,
            "device": self.device.type,
            "implementation": self.implementation,
        }


@dataclass(frozen=True)
class FitOutcome:
    """What a fit returns.

    Parameters
    ----------
    dictionary : Dictionary
        What was learned, on the CPU.
    log : list of dict
        One row an iteration.
    stop_reason : str
        Why the fit ended.
    """

    dictionary: Dictionary
    log: list[dict[str, Any]]
    stop_reason: str


def make_pursuits(
    settings: DBKSVDSettings, n_atoms: int, k: int
) -> tuple[PursuitSettings, PursuitSettings]:
    """Return how the dictionary codes samples, and how the fit codes a group."""
    is_mean = settings.sparsity == "mean"
    most = min(MOST_TIMES_MEAN * k, n_atoms) if is_mean else k
    pursuit = PursuitSettings(
        most,
        settings.pursuit,
        settings.nonnegative,
        settings.refit,
        settings.rtol,
        settings.product_dtype,
    )
    budget = -(-most // len(split_groups(n_atoms, settings.groups)))
    refit = settings.refit and settings.fit_refit
    return pursuit, replace(pursuit, k=budget, refit=refit)
