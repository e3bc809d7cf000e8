"""ITDA: the activations that a dictionary reconstructs worst become its atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dbksvd.base.work import Work
from dbksvd.fit.baselines.coded import CodedSettings, count_coding, count_making
from dbksvd.fit.method import FitSizes, Method

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask


class ITDASettings(CodedSettings):
    """Activations as atoms, chosen greedily in one pass (Leask et al. 2025)."""

    algorithm: Literal["itda"] = "itda"
    """The method's name in the registry."""


def fit(task: FitTask) -> FitResult:
    """Choose activations as atoms greedily, in one pass over the samples.

    The samples are read in 32 rounds. A round looks at its stretch of the samples (at most 32,768
    of it), codes it with the atoms so far and takes those with the largest relative residual
    ``‖x − x̂‖² / ‖x‖²`` as atoms, no two within ``|cos| > .9``. Every round takes the same number,
    so that the dictionary has exactly the width asked for; the paper takes whatever is over a
    threshold instead, and its width follows.

    Parameters
    ----------
    task : FitTask
        ``settings``: how samples are coded, while atoms are chosen and afterwards.

    Returns
    -------
    FitResult
        A :class:`dbksvd.Dictionary` of centred, normalised activations. ``stop_reason`` is
        "pass", after one pass over the data.

    Raises
    ------
    ValueError
        If there are fewer different samples than atoms.

    Notes
    -----
    Leask, Nanda and Al Moubayed, "Inference-time decomposition of activations (ITDA)"
    (arXiv 2505.17769), section 3.
    """
    from dbksvd.fit.baselines.itda_atoms import choose_all

    return choose_all(task)


def _plan(_settings: ITDASettings, sizes: FitSizes) -> Work:
    """Count one product of all samples with all atoms."""
    return count_making(sizes, products=2.0 * sizes.n_train * sizes.n_atoms * sizes.width)


METHOD = Method(
    settings=ITDASettings,
    fit=fit,
    plan=_plan,
    coding=count_coding,
    label=lambda _settings: "ITDA",
    is_control=True,
)
