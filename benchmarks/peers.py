"""The coders that are compared: ours, and those of other projects, called as they are meant to be.

Each is prepared outside the time that is taken: layouts and dtypes that a peer wants are made
beforehand. What a call computes from samples and atoms is inside, the Gram matrix too; only
scikit-learn is given the Gram matrix, which is an argument of its function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import find_version
from dbksvd.ops.pursuit.encode import sparse_encode

# A prepared coder: the call that is timed, and what turns its result into a reconstruction.
Prepared = tuple[Callable[[], Any], Callable[[Any], Tensor]]


@dataclass(frozen=True)
class Coder:
    """A contestant of the coding benchmark.

    Parameters
    ----------
    name : str
        As in the table.
    prepare : callable
        ``prepare(x, atoms, k)`` returns the call and its decoder.
    package : str, optional
        Distribution it needs; None for ours.
    most_seconds : float, optional
        A slow coder gets as many samples as it does in about this time; None is all.
    """

    name: str
    prepare: Callable[[Tensor, Tensor, int], Prepared]
    package: str | None = None
    most_seconds: float | None = None

    @property
    def is_installed(self) -> bool:
        """Whether it can run here."""
        return self.package is None or find_version(self.package) is not None


def prepare_ours(**settings: Any) -> Callable[[Tensor, Tensor, int], Prepared]:
    """Return the preparation of :func:`dbksvd.sparse_encode` with these settings."""

    def prepare(x: Tensor, atoms: Tensor, k: int) -> Prepared:
        return lambda: sparse_encode(x, atoms, k, **settings), lambda codes: codes.decode(atoms)

    return prepare


def prepare_spams(x: Tensor, atoms: Tensor, k: int) -> Prepared:
    """SPAMS ``omp``: samples and atoms are columns in Fortran order, float32.

    It is orthogonal least squares: it picks the atom that lowers the error most after the refit,
    not the one with the largest product, so it explains a little more than textbook orthogonal
    matching pursuit. ``eps`` must be given: without it 2.6.14 returns no codes at all
    in float32.
    """
    import spams

    threads = torch.get_num_threads()
    columns, dictionary = np.asfortranarray(x.numpy().T), np.asfortranarray(atoms.numpy().T)
    return (
        lambda: spams.omp(columns, dictionary, L=k, eps=0.0, numThreads=threads),
        lambda codes: torch.from_numpy(np.ascontiguousarray((dictionary @ codes).T)),
    )


def prepare_sklearn(x: Tensor, atoms: Tensor, k: int) -> Prepared:
    """scikit-learn's ``orthogonal_mp_gram``; it is one sample after another on one thread."""
    from sklearn.linear_model import orthogonal_mp_gram

    gram, dictionary = _make_gram(atoms), atoms.numpy()
    samples = x.numpy()
    return (
        lambda: orthogonal_mp_gram(gram, dictionary @ samples.T, n_nonzero_coefs=k),
        lambda codes: torch.from_numpy(np.ascontiguousarray(codes.T @ dictionary)),
    )


@lru_cache(maxsize=1)
def _make_gram(atoms: Tensor) -> np.ndarray[Any, Any]:
    return (atoms @ atoms.T).numpy()


def prepare_saelens(x: Tensor, atoms: Tensor, k: int) -> Prepared:
    """SAELens's matching-pursuit SAE with exactly k steps; non-negative, without refit."""
    from sae_lens.saes.matching_pursuit_sae import MatchingPursuitSAE, MatchingPursuitSAEConfig

    config = MatchingPursuitSAEConfig(
        d_in=atoms.shape[1],
        d_sae=len(atoms),
        residual_threshold=0.0,
        stop_on_duplicate_support=False,
        max_iterations=k,
        apply_b_dec_to_input=False,
    )
    sae = MatchingPursuitSAE(config).requires_grad_(False)
    sae.W_dec.copy_(atoms)
    return lambda: sae.encode(x), sae.decode


PRODUCT = "X Dᵀ (torch)"
GRAM = "D Dᵀ (torch)"
OURS_MP = "dbksvd mp + refit"
OURS_NONNEGATIVE = "dbksvd mp + refit, non-negative"
OURS_OMP = "dbksvd omp"
OURS_OLS = "dbksvd ols"
SPAMS_OMP = "SPAMS omp"
SKLEARN_OMP = "scikit-learn orthogonal_mp_gram"
SAELENS_MP = "SAELens matching pursuit"

CODERS = (
    Coder(OURS_MP, prepare_ours()),
    Coder(OURS_NONNEGATIVE, prepare_ours(nonnegative=True)),
    Coder(OURS_OMP, prepare_ours(method="omp")),
    Coder(OURS_OLS, prepare_ours(method="ols")),
    Coder(SPAMS_OMP, prepare_spams, "spams-bin"),
    Coder(SKLEARN_OMP, prepare_sklearn, "scikit-learn", most_seconds=1.5),
    Coder(SAELENS_MP, prepare_saelens, "sae-lens", most_seconds=1.5),
)


@dataclass(frozen=True)
class Agreement:
    """A check before any time is reported: fve of `coder` − fve of `other` is within bounds."""

    coder: str
    other: str
    low: float
    high: float
    reason: str


# The same algorithm must explain the same; SAELens solves a slightly other problem, and greedier
# ways explain less, hence the one-sided or wide bounds.
AGREEMENTS = (
    Agreement(OURS_OMP, SKLEARN_OMP, -1e-4, 1e-4, "the same algorithm"),
    Agreement(OURS_OLS, SPAMS_OMP, -1e-4, 1e-4, "the same algorithm"),
    Agreement(OURS_OMP, OURS_OLS, -0.03, 1e-3, "its picks explain a little less"),
    Agreement(OURS_MP, OURS_OMP, -0.03, 1e-3, "fewer refits explain a little less"),
    Agreement(OURS_NONNEGATIVE, SAELENS_MP, -1e-3, 0.1, "a refit and more steps explain more"),
)


def find_disagreement(explained: dict[str, dict[int, float]]) -> str | None:
    """Return what is wrong in one line, or None.

    Parameters
    ----------
    explained : dict
        For each coder, variance explained on the first r samples, for all r that were checked.
    """
    for check in AGREEMENTS:
        first, second = explained.get(check.coder, {}), explained.get(check.other, {})
        shared = max(first.keys() & second.keys(), default=None)
        if shared is None:
            continue
        gap = first[shared] - second[shared]
        if not check.low <= gap <= check.high:
            return (
                f"{check.coder} against {check.other}: expected a difference in variance explained "
                f"from {check.low:g} to {check.high:g} ({check.reason}), got {gap:.3g}"
            )
    return None
