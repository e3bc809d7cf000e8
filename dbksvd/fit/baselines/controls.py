"""Controls that learn little or nothing: what a score must beat to mean something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dbksvd.base.work import Work
from dbksvd.fit.baselines.coded import CodedSettings, count_coding, count_making
from dbksvd.fit.method import FitSizes, Method

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask


class RandomSettings(CodedSettings):
    """Isotropic unit vectors as atoms."""

    algorithm: Literal["random"] = "random"
    """The method's name in the registry."""


class IdentitySettings(CodedSettings):
    """The coordinates themselves as atoms, the first of them if fewer than the width."""

    algorithm: Literal["identity"] = "identity"
    """The method's name in the registry."""
    nonnegative: bool = False
    """Whether coefficients are never negative; both signs of a coordinate are one atom."""


class PCASettings(CodedSettings):
    """The leading principal directions as atoms, at most the width."""

    algorithm: Literal["pca"] = "pca"
    """The method's name in the registry."""
    nonnegative: bool = False
    """Whether coefficients are never negative; both signs of a direction are one atom."""


class KMeansSettings(CodedSettings):
    """The directions of k-means centres as atoms."""

    algorithm: Literal["kmeans"] = "kmeans"
    """The method's name in the registry."""


def fit(task: FitTask) -> FitResult:
    """Make a dictionary that is no dictionary learning, coded by the same pursuit as DB-KSVD.

    ``random``: isotropic unit vectors. ``identity``: the coordinates themselves, the first of
    them if fewer than d. ``pca``: the leading principal directions, at most d; both signs of a
    direction are one atom, as of a coordinate. ``kmeans``: the directions of the centres of the
    centred samples' directions, by scikit-learn's mini-batch k-means (Sculley 2010) in one pass.
    """
    from dbksvd.fit.baselines.control_atoms import make_control

    return make_control(task)


def _count_nothing(_settings: CodedSettings, sizes: FitSizes) -> Work:
    return count_making(sizes)


def _count_pca(_settings: CodedSettings, sizes: FitSizes) -> Work:
    return count_making(sizes, products=2.0 * sizes.n_train * sizes.width**2)


def _count_kmeans(_settings: CodedSettings, sizes: FitSizes) -> Work:
    """Count about two passes over the samples, as scikit-learn's mini-batches take."""
    products = 2 * 2.0 * sizes.n_train * sizes.n_atoms * sizes.width
    return count_making(sizes, products=products, samples_held=sizes.n_train)


def _check_width(_settings: CodedSettings, n_atoms: int, width: int, _n_train: int) -> None:
    if n_atoms > width:
        raise ValueError(f"n_atoms: expected at most the width {width}, got {n_atoms}")


def _check_samples(_settings: CodedSettings, n_atoms: int, _width: int, n_train: int) -> None:
    if n_atoms > n_train:
        raise ValueError(f"n_atoms: expected at most the {n_train} training samples, got {n_atoms}")


def _make_entry(
    settings: type[CodedSettings],
    plan: Any,
    label: str,
    check_rows: Any = None,
    *,
    is_floor: bool = False,
) -> Method:
    return Method(
        settings=settings,
        fit=fit,
        plan=plan,
        coding=count_coding,
        label=lambda _settings: label,
        is_control=True,
        is_floor=is_floor,
        **({} if check_rows is None else {"check_rows": check_rows}),
    )


RANDOM = _make_entry(RandomSettings, _count_nothing, "random atoms", is_floor=True)
IDENTITY = _make_entry(IdentitySettings, _count_nothing, "raw neurons", _check_width)
PCA = _make_entry(PCASettings, _count_pca, "PCA", _check_width)
KMEANS = _make_entry(KMeansSettings, _count_kmeans, "k-means", _check_samples)
