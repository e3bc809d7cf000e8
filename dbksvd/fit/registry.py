"""The methods: a name in the config, and the module that fits it.

A module of this table offers ``fit(task: FitTask) -> FitResult``. Modules are imported when their
method is used, so a rule depends on the sources of its own method only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask

ALGORITHMS = {
    "dbksvd": "dbksvd.fit.ksvd.method",
    "ksvd": "dbksvd.fit.ksvd.method",
    "sae": "dbksvd.fit.sae.method",
    "random": "dbksvd.fit.baselines.controls",
    "identity": "dbksvd.fit.baselines.controls",
    "pca": "dbksvd.fit.baselines.controls",
    "kmeans": "dbksvd.fit.baselines.controls",
    "itda": "dbksvd.fit.baselines.itda",
    "grown": "dbksvd.fit.grown.method",
    "permuted": "dbksvd.fit.baselines.permuted",
    "pretrained": "dbksvd.fit.baselines.pretrained",
}

# What several processes can fit together.
DATA_PARALLEL = ("dbksvd", "ksvd", "sae")

# Architectures that are ours: their modules shape the fits that use them, and no others.
ARCHITECTURES = {
    "switch": "dbksvd.dictionaries.switch",
    "kron": "dbksvd.dictionaries.kron",
}

# Settings that name another method of the experiment, whose dictionary becomes `FitTask.base`.
BASE_KEYS = ("warm_start", "of")


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
