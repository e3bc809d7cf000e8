"""The methods: a name in the config, and the module that fits it.

A module of this table offers ``fit(task: FitTask) -> FitResult``. Modules are imported when their
method is used, so a rule depends on the sources of its own method only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from dbksvd.fit.result import FitResult
    from dbksvd.ops.ranks import Ranks
    from dbksvd.shards import ActivationShards

ALGORITHMS = {
    "dbksvd": "dbksvd.fit.ksvd_task",
    "ksvd": "dbksvd.fit.ksvd_task",
    "sae": "dbksvd.fit.sae",
    "random": "dbksvd.fit.controls",
    "identity": "dbksvd.fit.controls",
    "pca": "dbksvd.fit.controls",
    "kmeans": "dbksvd.fit.controls",
    "itda": "dbksvd.fit.itda",
    "grown": "dbksvd.fit.grown",
    "permuted": "dbksvd.fit.permuted",
    "pretrained": "dbksvd.fit.pretrained",
}

# What several processes can fit together.
DATA_PARALLEL = ("dbksvd", "ksvd", "sae")

# Architectures that are ours: their modules shape the fits that use them, and no others.
ARCHITECTURES = {
    "switch": "dbksvd.architectures.switch",
    "kron": "dbksvd.architectures.kron",
}

# Settings that name another method of the experiment, whose dictionary becomes `FitTask.base`.
BASE_KEYS = ("warm_start", "of")


def _be_alone() -> Ranks:
    from dbksvd.ops.ranks import ALONE  # configs are checked with this module: no torch

    return ALONE


@dataclass
class FitTask:
    """Everything a method is given.

    Parameters
    ----------
    train, heldout : ActivationShards
        Activations to learn from and to measure on.
    n_atoms, k, seed : int
        Atoms of the dictionary, non-zeros a sample, seed of all randomness.
    settings : dict
        The method's own section of the config, with ``algorithm``.
    device : torch.device
        Where to compute.
    checkpoint : Path
        Folder for unfinished work; the caller removes it after success.
    metadata : dict
        Model, layer and context of the activations, to be kept in ``cfg.json``.
    base : Path, optional
        Dictionary folder of the fit that this one begins from, where the settings name its method.
    ranks : Ranks
        The processes that fit together; all have the same task.
    """

    train: ActivationShards
    heldout: ActivationShards
    n_atoms: int
    k: int
    seed: int
    settings: dict[str, Any]
    device: torch.device
    checkpoint: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    base: Path | None = None
    ranks: Ranks = field(default_factory=_be_alone)


def find_method(algorithm: str) -> Callable[[FitTask], FitResult]:
    """Return the fit function of an algorithm.

    Raises
    ------
    ValueError
        If no such algorithm is registered.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"algorithm: expected one of {', '.join(sorted(ALGORITHMS))}, got {algorithm!r}"
        )
    return import_module(ALGORITHMS[algorithm]).fit


def find_base(settings: Mapping[str, Any]) -> str | None:
    """Return the method whose fit of the same site, sizes and seed this method begins from."""
    return next((settings[key] for key in BASE_KEYS if key in settings), None)


def list_sources(settings: Mapping[str, Any]) -> list[str]:
    """Return the files, relative to the project, that a fit with a method's settings begins at."""
    modules = [ALGORITHMS[settings["algorithm"]]]
    if settings.get("architecture") in ARCHITECTURES:
        modules.append(ARCHITECTURES[settings["architecture"]])
    return [module.replace(".", "/") + ".py" for module in modules]
