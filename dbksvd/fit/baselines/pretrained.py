"""Published SAEs as a method: fetched or read, checked against the activations, not trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.base.work import FLOAT, Work
from dbksvd.fit.baselines.pretrained_releases import (
    PretrainedSettings,
    check_published,
    check_weights,
    find_layer,
)
from dbksvd.fit.method import FitSizes, Method

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask

__all__ = ["METHOD", "PretrainedSettings", "check_published", "find_layer", "fit"]


def fit(task: FitTask) -> FitResult:
    """Take a published SAE for the place that the activations come from.

    Its decoder norms are folded into its encoder, so that atoms are unit; reconstructions do not
    change. Of ``k`` nothing is asked: an SAE has the L0 it was trained to, which the seal states
    for the first 4,096 held-out samples. Nothing is learned, so ``seed`` has no effect.

    Parameters
    ----------
    task : FitTask
        ``settings``: ``release`` and ``id``, in whichever file layout SAELens converts (Gemma
        Scope's params.npz, SAEBench's ae.pt, ...), or ``path``.

    Returns
    -------
    FitResult
        With the L0 and variance explained, and the release, in its summary.

    Raises
    ------
    ValueError
        If the SAE cannot be fetched; is for another width, model or place than the activations;
        has not ``n_atoms`` latents; normalises its input while running; is of no kind that
        scoring knows; or has decoder norms that its encoder cannot take.

    Notes
    -----
    Files of tensors are safetensors or npz, or .pt files (SAEBench's own SAEs), which torch reads
    here with ``weights_only`` whatever else is set: code in them is refused, not run.
    """
    from dbksvd.fit.baselines.pretrained_loading import take_published

    return take_published(task)


def _plan(_settings: PretrainedSettings, sizes: FitSizes) -> Work:
    weights = float(sizes.n_atoms * sizes.width)
    return Work(memory=3 * weights * FLOAT, disk=2 * weights * FLOAT)


def _count_coding(_settings: PretrainedSettings, sizes: FitSizes) -> Work:
    """Count one product with the encoder, as the kinds have it that are published most."""
    return Work(products=2.0 * sizes.width * sizes.n_atoms)


def _check_sizes(settings: PretrainedSettings, n_atoms: int, _k: int) -> None:
    check_published(settings, n_atoms)


def _check_rows(settings: PretrainedSettings, n_atoms: int, width: int, _n_train: int) -> None:
    check_weights(settings, n_atoms, width)


METHOD = Method(
    settings=PretrainedSettings,
    fit=fit,
    plan=_plan,
    coding=_count_coding,
    label=lambda _settings: "published SAE",
    check_sizes=_check_sizes,
    check_rows=_check_rows,
)
