"""Exact K-SVD, the algorithm that DB-KSVD makes fast: every sample, every atom, one at a time."""

from __future__ import annotations

from typing import Any, Literal

from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.fit.ksvd.estimator import remember_arguments
from dbksvd.fit.ksvd.settings import KSVD_CHOICES, KSVDSettings

DEFAULTS = KSVDSettings()


class KSVD(DBKSVD):
    """K-SVD: code all samples, then update one atom after another on the newest residual.

    The rank-1 approximation of an atom is found by power iterations that start at the atom; the
    error of the coded data never rises in an update. Every iteration reads and keeps all samples
    and their residuals, so that the data must fit in memory: 8 n d bytes in float32.

    Parameters
    ----------
    n_atoms, k : int
        As in :class:`dbksvd.DBKSVD`.
    max_iter : int
        Sweeps over all samples.
    power_iterations : int
        Power iterations an atom and update; 1 is approximate K-SVD.
    method : {"omp", "mp", "ols"}
        The pursuit. K-SVD's own is orthogonal matching pursuit.
    fit_refit : bool
        Whether coefficients are refitted while fitting too.
    **settings
        Any other parameter of :class:`dbksvd.DBKSVD` but ``batch_size``, ``atom_batch``,
        ``polish_iter``, ``iterations_per_batch`` and doubling, which K-SVD fixes.

    Raises
    ------
    ValueError
        For a parameter that K-SVD fixes, and as :class:`dbksvd.DBKSVD`.

    Notes
    -----
    Aharon, Elad and Bruckstein, "K-SVD: an algorithm for designing overcomplete dictionaries for
    sparse representation" (2006), figure 2; Rubinstein, Zibulevsky and Elad (2008), algorithm 5,
    for the approximate one.
    """

    FIXED = (
        "batch_size",
        "atom_batch",
        "polish_iter",
        "iterations_per_batch",
        "doubling_iterations",
        "doubling_samples",
    )

    @remember_arguments
    def __init__(
        self,
        n_atoms: int,
        k: int,
        *,
        max_iter: int = DEFAULTS.max_iter,
        power_iterations: int = DEFAULTS.power_iterations,
        method: Literal["mp", "omp", "ols"] = DEFAULTS.pursuit,
        fit_refit: bool = DEFAULTS.fit_refit,
        **settings: Any,
    ) -> None:
        for name in self.FIXED:
            if name in settings:
                raise ValueError(
                    f"{name}: expected nothing, K-SVD fixes it, got {settings[name]!r}"
                )
        if settings.get("init") == "doubling":
            raise ValueError("init: expected samples, random or atoms for K-SVD, got 'doubling'")
        super().__init__(
            n_atoms,
            k,
            max_iter=max_iter,
            power_iterations=power_iterations,
            method=method,
            fit_refit=fit_refit,
            **KSVD_CHOICES,
            **settings,
        )
