"""Mutual feature regularisation as a method. No torch at import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.base.work import FLOAT, Work
from dbksvd.fit.method import FitSizes, Method
from dbksvd.fit.mfr.settings import MFRSettings, count_training_samples

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask


def fit(task: FitTask) -> FitResult:
    """Train SAEs side by side under a penalty on features that they do not share.

    The samples are centred, and scaled to a mean square of 1. SAE a has weights W (m, d) of unit
    rows Ŵ and a bias b: z = TopK(W x + b) and x̂ = z Ŵ. Its loss is the mean squared error, plus
    weight · w(t) · the mean over pairs of SAEs of 1 − M, where M is the mean cosine of their
    matched rows (Hungarian, held while the gradient is taken) and w(t) rises from 0 to 1 as a
    cosine over ``ramp_steps``. The dictionary is the first SAE, whichever explains most.

    Parameters
    ----------
    task : FitTask
        ``settings`` are `MFRSettings`.

    Returns
    -------
    FitResult
        An SAE of SAELens's architecture ``topk``. SAELens's TopK drops values below 0, which the
        training keeps; there are such only where fewer than k of the products are above 0.

    Raises
    ------
    ValueError
        If the loss is not finite.

    References
    ----------
    arXiv:2411.01220, and the code luke-marks0/mutual-feature-regularization: tied and normalised
    weights, orthogonal start, no bias of the decoder, matching by cosine (the paper takes maxima).
    """
    from dbksvd.fit.mfr.training import train

    return train(task)


def _plan(settings: MFRSettings, sizes: FitSizes) -> Work:
    """Return three forward passes a sample and SAE; matchings take a cube of the atoms."""
    samples = count_training_samples(settings, sizes.n_atoms, sizes.k, sizes.n_train)
    forward = 4.0 * sizes.width * sizes.n_atoms
    pairs = settings.n_saes * (settings.n_saes - 1) / 2
    matchings = samples / settings.batch_size / settings.match_every * pairs
    weights = float(settings.n_saes * sizes.n_atoms * sizes.width)
    held = 4 * weights + 3.0 * settings.batch_size * sizes.n_atoms + 2.0 * sizes.n_atoms**2
    return Work(
        products=3 * forward * samples * settings.n_saes,
        steps=matchings * float(sizes.n_atoms) ** 3 / 8,
        memory=held * FLOAT,
        disk=2.0 * sizes.n_atoms * sizes.width * FLOAT,
    )


def _count_coding(_settings: MFRSettings, sizes: FitSizes) -> Work:
    return Work(products=2.0 * sizes.width * sizes.n_atoms)


METHOD = Method(
    settings=MFRSettings,
    fit=fit,
    plan=_plan,
    coding=_count_coding,
    label=lambda settings: f"MFR SAE, first of {settings.n_saes}",
    stage="train SAEs",
)
