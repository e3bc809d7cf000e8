"""Arguments of the estimators become settings; errors have the names of the arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dbksvd.base.settings import parse
from dbksvd.fit.ksvd.settings import DBKSVDSettings
from dbksvd.ops.inputs import as_count

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
    values = {name: _unwrap(value) for name, value in arguments.items()}
    for name in COUNTS:
        values[name] = as_count(values[name], name)
    for name in OPTIONAL_COUNTS:
        if values[name] is not None:
            values[name] = as_count(values[name], name)
    values["polish_iter"] = as_count(values["polish_iter"], "polish_iter", least=0)
    for name in ("min_usage", "heldout_every"):
        values[name] = _make_whole(values[name])
    method, sparsity, init = (arguments[name] for name in ("method", "sparsity", "init"))
    if method not in ("mp", "omp", "ols"):
        raise ValueError(f"method: expected 'mp', 'omp' or 'ols', got {method!r}")
    if sparsity not in ("exact", "mean"):
        raise ValueError(f"sparsity: expected 'exact' or 'mean', got {sparsity!r}")
    if isinstance(init, str) and init not in ("doubling", "samples", "random"):
        raise ValueError(f"init: expected doubling, samples, random or atoms, got {init!r}")
    if not isinstance(init, str | Tensor | np.ndarray):
        raise ValueError(
            f"init: expected doubling, samples, random or atoms, got {type(init).__name__}"
        )
    values["pursuit"] = values.pop("method")
    if not isinstance(init, str):
        del values["init"]  # atoms are no setting
    values["groups"] = _list_groups(values["groups"])
    return parse(DBKSVDSettings, values)


def _unwrap(value: Any) -> Any:
    """Return a number of numpy as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _list_groups(groups: Any) -> Any:
    if isinstance(groups, Sequence | np.ndarray) and not isinstance(groups, str):
        return [_make_whole(size) for size in groups]
    return _make_whole(groups)


def _make_whole(value: Any) -> Any:
    """Return a number without a fraction as an int, anything else for the settings to refuse."""
    value = _unwrap(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
