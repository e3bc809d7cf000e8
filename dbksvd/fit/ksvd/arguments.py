"""Arguments of the estimators become settings; errors have the names of the arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbksvd.base.settings import parse
from dbksvd.fit.ksvd.settings import DBKSVDSettings

# Arguments that are settings; the setting `pursuit` is the argument `method`.
SETTING_NAMES = {"method", *DBKSVDSettings.model_fields} - {"pursuit", "algorithm", "device"}
COUNTS = (
    *("max_iter", "iterations_per_batch", "power_iterations"),
    *("doubling_iterations", "doubling_samples"),
)
# None of these is a number that follows from the sizes.
OPTIONAL_COUNTS = ("batch_size", "atom_batch")


def fill_settings(arguments: Mapping[str, Any]) -> DBKSVDSettings:
    """Return the settings that the arguments of :class:`dbksvd.DBKSVD` say.

    Raises
    ------
    ValueError
        If one of them cannot be used; the message begins with its name.
    """
    check_counts({name: arguments[name] for name in COUNTS})
    optional = {name: arguments[name] for name in OPTIONAL_COUNTS}
    check_counts({name: value for name, value in optional.items() if value is not None})
    polish_iter = arguments["polish_iter"]
    if not isinstance(polish_iter, int) or polish_iter < 0:
        raise ValueError(f"polish_iter: expected an integer ≥ 0, got {polish_iter!r}")
    method, sparsity, init = (arguments[name] for name in ("method", "sparsity", "init"))
    if method not in ("mp", "omp", "ols"):
        raise ValueError(f"method: expected 'mp', 'omp' or 'ols', got {method!r}")
    if sparsity not in ("exact", "mean"):
        raise ValueError(f"sparsity: expected 'exact' or 'mean', got {sparsity!r}")
    if isinstance(init, str) and init not in ("doubling", "samples", "random"):
        raise ValueError(f"init: expected doubling, samples, random or atoms, got {init!r}")
    values = {name: value for name, value in arguments.items() if name != "method"}
    values["pursuit"] = method
    if not isinstance(init, str):
        del values["init"]  # atoms are no setting
    groups = values["groups"]
    values["groups"] = groups if groups is None or isinstance(groups, int) else list(groups)
    return parse(DBKSVDSettings, values)


def check_counts(counts: Mapping[str, Any]) -> None:
    """Check that numbers are positive and whole, or raise a ValueError that names the first."""
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected a positive integer, got {value!r}")
