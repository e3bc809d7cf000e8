"""What scikit-learn asks of an estimator, so that pipelines, clones and searches take K-SVD.

scikit-learn itself is imported only where it calls: the package does not need it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Self

import numpy as np
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.fit.measure import measure_explained
from dbksvd.fit.reading import as_source

OUTPUTS = ("codes", "dense", "csr")


def remember_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """Let a constructor keep its arguments as they were given, defaults too, in ``_given``."""
    signature = inspect.signature(init)

    @wraps(init)
    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        init(self, *args, **kwargs)
        given = dict(list(bound.arguments.items())[1:])
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given |= given.pop(name)
        # that of a subclass is kept last
        self.__dict__["_given"] = given

    return remember


class SklearnEstimator:
    """Parameters, scores and outputs as scikit-learn's transformers have them."""

    _given: dict[str, Any]
    n_features_in_: int

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - nothing is nested
        """Return the arguments of the constructor, by name."""
        return dict(self._given)

    def set_params(self, **params: Any) -> Self:
        """Change arguments of the constructor; what was fitted is forgotten.

        Raises
        ------
        ValueError
            If there is no such argument, or a value cannot be used.
        """
        if not params:
            return self
        try:
            changed = type(self)(**self._given | params)
        except TypeError:
            unknown = ", ".join(sorted(set(params) - set(self._given)))
            raise ValueError(
                f"params: expected some of {', '.join(self._given)}, got {unknown}"
            ) from None
        self.__dict__.clear()
        self.__dict__.update(changed.__dict__)
        return self

    def __sklearn_clone__(self) -> Self:
        return type(self)(**self._given)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="transformer",
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=["float32"]),
            input_tags=InputTags(),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return "dictionary_" in self.__dict__

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self._given.items()
            if isinstance(value, Tensor | np.ndarray)
            or name not in defaults
            or value != defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def fit_transform(self, x: Any, y: Any = None) -> Any:
        """Fit and return the codes of the same samples; `y` is not used."""
        return self.fit(x, y).transform(x)  # type: ignore[attr-defined]

    def score(self, x: Any, y: Any = None) -> float:  # noqa: ARG002 - as scikit-learn calls it
        """Return the share of the variance of samples (n, d) that the dictionary explains."""
        dictionary, device = self.dictionary_, self.device  # type: ignore[attr-defined]
        return measure_explained(dictionary, as_source(x), device)

    def get_feature_names_out(self, _input_features: Any = None) -> np.ndarray[Any, Any]:
        """Return a name for each atom, dbksvd0 to the last."""
        count = len(self.dictionary_.atoms)  # type: ignore[attr-defined]
        stem = type(self).__name__.lower()
        return np.array([f"{stem}{number}" for number in range(count)], dtype=object)


def check_labels(y: Any, width: int) -> None:
    """Refuse held-out samples in the place of labels, where they would be ignored in silence.

    Raises
    ------
    ValueError
        If `y` is a matrix of the width of the samples.
    """
    shape = tuple(getattr(y, "shape", ()))
    if len(shape) == 2 and shape[1] == width:
        raise ValueError(f"y: expected labels or None, got shape {shape}; for samples: heldout=…")


def write_codes(codes: SparseCodes, output: str) -> Any:
    """Return codes in the form that `output` names: an array (n, m) of numpy or scipy, or as is."""
    if output == "dense":
        return codes.to_dense().numpy()
    if output == "csr":
        from scipy.sparse import csr_array

        used = codes.values != 0
        starts = np.concatenate([[0], codes.l0.cumsum(0).numpy()])
        entries = codes.values[used].numpy(), codes.indices[used].numpy(), starts
        return csr_array(entries, shape=(len(codes), codes.n_atoms))
    return codes
