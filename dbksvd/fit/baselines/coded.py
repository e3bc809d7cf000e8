"""What baselines share that choose atoms and leave coding to a pursuit. Needs no torch."""

from __future__ import annotations

from typing import Literal

from dbksvd.base.work import FLOAT, Work
from dbksvd.fit.method import FitSizes, MethodSettings
from dbksvd.fit.pursuit_work import count_pursuit


class CodedSettings(MethodSettings):
    """How samples are coded over the atoms."""

    nonnegative: bool = True
    """Whether coefficients are never negative."""
    pursuit: Literal["mp", "omp", "ols"] = "ols"
    """Pursuit that picks atoms; ols is DB-KSVD's default."""


def count_making(sizes: FitSizes, products: float = 0.0, samples_held: int = 0) -> Work:
    """Return the work of choosing atoms.

    Parameters
    ----------
    sizes : FitSizes
        Atoms and their width.
    products : float
        Floating-point operations of it.
    samples_held : int
        Samples that are in memory at the same time.
    """
    weights = float(sizes.n_atoms * sizes.width)
    held = 3 * weights + samples_held * sizes.width
    return Work(products=products, memory=held * FLOAT, disk=2 * weights * FLOAT)


def count_coding(settings: CodedSettings, sizes: FitSizes) -> Work:
    """Return the work of coding one sample."""
    return count_pursuit(sizes.width, sizes.n_atoms, sizes.k, settings.pursuit, refit=True)
