"""Settings of DB-KSVD and K-SVD, and of the estimators: every default is here. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from dbksvd.base.settings import (
    Count,
    NonNegative,
    NonNegativeInt,
    Positive,
)
from dbksvd.fit.method import MethodSettings

# As many samples in a batch as there are, however many these are.
EVERY_SAMPLE = 1 << 62
# What K-SVD fixes of DB-KSVD: every sample, every atom one at a time, no larger batches at the end.
KSVD_CHOICES: dict[str, Any] = {"batch_size": EVERY_SAMPLE, "atom_batch": 1, "polish_iter": 0}

Pursuit = Literal["mp", "omp", "ols"]
Sizes = Annotated[list[Count], Field(min_length=1)]


class SharedSettings(MethodSettings):
    """What DB-KSVD and K-SVD have in common."""

    nonnegative: bool = False
    """Whether coefficients must be at least 0."""
    pursuit: Pursuit = "ols"
    """How samples are coded: matching pursuit, orthogonal matching pursuit, or orthogonal least
    squares, which learns a better dictionary in the time of mp. On CUDA, only mp and omp have
    kernels of their own."""
    refit: bool = True
    """Whether the dictionary refits coefficients by least squares; omp and ols always do."""
    fit_refit: bool = False
    """Whether coefficients are refitted while fitting too. Refitted coefficients of neighbouring
    atoms counteract each other, and non-negative ones lose half their gain."""
    rtol: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Relative residual norm at which the pursuit of a sample ends; 0 never ends it."""
    product_dtype: Literal["bfloat16"] | None = None
    """Dtype in which samples are multiplied with atoms; null is their own, float32."""
    max_iter: Count = 60
    """Iterations with all atoms."""
    power_iterations: Count = 3
    """Power iterations of an atom in an update."""
    min_usage: NonNegativeInt = 3
    """Atoms that fewer samples of a batch use are replaced."""
    max_cosine: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Of two atoms with a larger cosine, the one that is used less is replaced."""
    max_seconds: Positive | None = None
    """Fit time in seconds, on a CPU of processor time, after which no iteration begins; null is no
    limit."""
    tol: NonNegative = 0.0
    """Least gain in the fraction of variance explained on a batch: a smaller one ends the fit."""
    heldout_every: NonNegativeInt = 12
    """Iterations between measurements on held-out samples; 0 measures at the end only."""
    checkpoint_seconds: NonNegative = 60.0
    """Least time between two checkpoints, in seconds."""
    implementation: Literal["auto", "reference", "batched", "cpu", "cuda"] = "auto"
    """Which code computes; auto is numba on the CPU, and Triton or batched torch on CUDA."""

    def list_arguments(self) -> dict[str, Any]:
        """Return the settings as keyword arguments of the estimator, but for the device."""
        chosen = self.model_dump(exclude={"algorithm", "device"})
        return {"method": chosen.pop("pursuit"), **chosen}


class DBKSVDSettings(SharedSettings):
    """DB-KSVD: batches of samples, and batches of atoms."""

    algorithm: Literal["dbksvd"] = "dbksvd"
    """The method's name in the registry."""
    sparsity: Literal["exact", "mean"] = "exact"
    """Whether k is the most non-zeros of a sample or their mean over samples."""
    polish_iter: NonNegativeInt = 4
    """Iterations after max_iter, each on twice the samples of the one before, at most all."""
    groups: Count | Sizes | None = None
    """Matryoshka groups: their sizes in atoms, or the size of the first group, which then doubles;
    null is one group."""
    init: Literal["doubling", "samples", "random"] = "samples"
    """First atoms: doubled from a few by a short k-means on the residual; random samples; or random
    directions."""
    doubling_iterations: Count = 2
    """Iterations at each size below all atoms, for init doubling."""
    doubling_samples: Count = 32
    """Samples an atom in those iterations."""
    batch_size: Count | None = None
    """Samples an iteration; null is as many as use each atom about 128 times: 128 n_atoms / k."""
    iterations_per_batch: Count = 1
    """Iterations on one batch before the next is read."""
    atom_batch: Count | None = None
    """Atoms that are updated together; null is n_atoms / k, of which a sample uses about one."""


class KSVDSettings(SharedSettings):
    """K-SVD: every iteration codes all samples and updates the atoms one after another."""

    algorithm: Literal["ksvd"] = "ksvd"
    """The method's name in the registry."""
    pursuit: Pursuit = "omp"
    """How samples are coded; K-SVD's own is orthogonal matching pursuit."""
    fit_refit: bool = True
    """Whether coefficients are refitted while fitting too, as K-SVD does."""
    init: Literal["samples", "random"] = "samples"
    """First atoms: random samples or random directions."""
    max_iter: Count = 20
    """Sweeps over all samples."""
    power_iterations: Count = 10
    """Power iterations of an atom in an update; 1 is approximate K-SVD."""
    heldout_every: NonNegativeInt = 4
    """Iterations between measurements on held-out samples; 0 measures at the end only."""

    def to_dbksvd(self) -> DBKSVDSettings:
        """Return K-SVD as a choice of DB-KSVD's settings."""
        return DBKSVDSettings(**self.model_dump(exclude={"algorithm"}), **KSVD_CHOICES)
