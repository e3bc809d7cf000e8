"""The l1 probes of sae-probes without scikit-learn's checks of what they are given.

sae-probes fits 11 logistic regressions for each data set and number of latents, on a thousand texts
and a few latents. The solver takes a tenth of their time; the rest goes into finding out what kind
of array each of the many small functions was given. Here scikit-learn's solver is called as its
class calls it, with the same numbers, so that the results are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.integrate import trapezoid
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model._sag import sag_solver
from sklearn.metrics import roc_auc_score
from sklearn.utils.extmath import row_norms

TOLERANCE = 1e-4  # of scikit-learn's class


@contextmanager
def quick_probes() -> Iterator[None]:
    """Let sae-probes fit and measure its l1 probes by `L1Probe` and `measure_auc`."""
    module = import_module("sae_probes.utils_training")
    with (
        patch.object(module, "LogisticRegression", make_probe),
        patch.object(module, "roc_auc_score", measure_auc),
    ):
        yield


def make_probe(**options: Any) -> Any:
    """Return a probe with the options of scikit-learn's class: an `L1Probe` where it can be one."""
    if {*options} == {"C", "penalty", "solver", "random_state", "max_iter"} and (
        (options["penalty"], options["solver"]) == ("l1", "saga")
    ):
        return L1Probe(options)
    return LogisticRegression(**options)


class L1Probe:
    """Logistic regression of two classes with an l1 penalty, as scikit-learn's by its solver saga.

    Parameters
    ----------
    options : dict
        ``C``, ``random_state`` and ``max_iter``, and ``penalty`` and ``solver`` for scikit-learn's
        class, which takes over where there are not two classes or not all numbers are finite.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.fallback: Any = None

    def fit(self, x: Any, y: Any) -> L1Probe:
        """Learn from samples (n, d) and their labels."""
        # scikit-learn knows the type of NumPy's arrays only, and computes others in float64
        wanted = None if isinstance(x, np.ndarray) else np.float64
        rows, labels = np.ascontiguousarray(x, dtype=wanted), np.asarray(y)
        self.classes = np.unique(labels)
        is_usual = rows.dtype in (np.float32, np.float64) and np.isfinite(rows).all()
        if not is_usual or len(self.classes) != 2:
            self.fallback = LogisticRegression(**self.options).fit(x, y)
            return self
        target = (labels == self.classes[1]).astype(rows.dtype)
        start = np.zeros((rows.shape[1] + 1, 1), dtype=rows.dtype)
        weights, _, _ = sag_solver(
            *(rows, target, None, "log"),
            alpha=0.0,
            beta=1.0 / self.options["C"],
            max_iter=self.options["max_iter"],
            tol=TOLERANCE,
            random_state=self.options["random_state"],
            check_input=False,
            max_squared_sum=row_norms(rows, squared=True).max(),
            warm_start_mem={"coef": start},
            is_saga=True,
        )
        self.weights, self.intercept = weights[:-1], weights[-1:]
        return self

    def _score(self, x: Any) -> np.ndarray:
        scores = np.asarray(x) @ self.weights[None, :].T + self.intercept
        return np.asarray(scores).reshape(-1)

    def predict_proba(self, x: Any) -> np.ndarray:
        """Return the probability of each class, shape (n, 2)."""
        if self.fallback is not None:
            return np.asarray(self.fallback.predict_proba(x))
        scores = self._score(x)
        positive = expit(scores, out=scores)
        return np.stack([1 - positive, positive], axis=1)

    def predict(self, x: Any) -> np.ndarray:
        """Return the likelier class of each sample."""
        if self.fallback is not None:
            return np.asarray(self.fallback.predict(x))
        return np.asarray(self.classes[(self._score(x) > 0).astype(int)])


def measure_auc(y: Any, score: Any) -> float:
    """Return the area under the ROC curve of two classes, as scikit-learn does.

    Parameters
    ----------
    y : array of shape (n,)
        Labels; where they are not of two classes, scikit-learn says what it does of them.
    score : ndarray of shape (n,)
        Higher where the second class is likelier.
    """
    labels, scores = np.asarray(y), np.asarray(score)
    classes = np.unique(labels)
    if len(classes) != 2 or not np.isfinite(scores).all():
        return float(roc_auc_score(y, score))
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], (labels[order] == classes[1]).astype(np.float64)
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    hits = np.cumsum(positive)[ends]
    misses = 1 + ends.astype(np.float64) - hits
    if len(ends) > 2:  # points on a line between others
        corners = (np.diff(misses, 2) != 0) | (np.diff(hits, 2) != 0)
        kept = np.concatenate([[True], corners, [True]])
        hits, misses = hits[kept], misses[kept]
    hits, misses = np.append(0.0, hits), np.append(0.0, misses)
    return float(trapezoid(hits / hits[-1], misses / misses[-1]))
