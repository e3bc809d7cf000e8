"""Dictionaries trained on by what they cost the model, as methods. No torch at import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbksvd.base.work import FLOAT, Work
from dbksvd.fit.e2e.settings import (
    PENALISED,
    E2EDownstreamSettings,
    E2ESettings,
    SplicedSettings,
)
from dbksvd.fit.method import Base, FitSizes, Method

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask


def fit(task: FitTask) -> FitResult:
    """Train the dictionary of another fit on, by what it costs the frozen model.

    A batch of training documents goes through the model twice: as it is, and with the dictionary's
    reconstructions in the place of the activations at the site, where only the blocks behind it
    run. The loss is kl_weight · KL(original ‖ spliced), a mean over tokens, and for
    `e2e_downstream` also downstream_weight · the mean over later blocks of Σ (a' − a)² / Σ (a − ā)²
    of their residual streams.

    1. An SAE codes by its own encoder; all its weights learn.
    2. Of a pursuit, the atoms it picks are held while the gradient is taken; coefficients are least
       squares on them, which gradients go through to atoms and bias
       (:func:`.held_support.decode_support`).

    Special tokens and rows over the norm limit, which no fit sees, keep their activations and count
    in no loss. Atoms go back to unit norm behind each step. Thresholds are set at the end so that
    samples have as many non-zeros as before. With one epoch, the model reads each batch once; with
    more, what it has without the dictionary, its logits included, is kept as far as 1 GiB goes.

    Parameters
    ----------
    task : FitTask
        ``base`` is the fit of the method that the setting ``of`` names; ``extraction`` and ``text``
        say what the activations are of.

    Returns
    -------
    FitResult
        The log has two rows, before and after: the model's CE loss and KL on held-out text, L0 and
        variance explained. Seconds and samples are those of the base and of this training.

    Raises
    ------
    ValueError
        If the model is not causal, the text too short, or the base is of another place.

    References
    ----------
    Braun et al. (2024), "Identifying functionally important features with end-to-end sparse
    dictionary learning", arXiv:2405.12241: the losses, their weights, Adam with a warm-up and a
    cosine. There SAEs begin untrained, under an L1 penalty.
    """
    from dbksvd.fit.e2e.training import train

    return train(task)


def check_base(settings: SplicedSettings, base: Any) -> None:
    """Refuse SAEs whose number of non-zeros would drift.

    Parameters
    ----------
    settings : SplicedSettings
        Names the method whose dictionary is trained on.
    base : Settings
        Settings of that method.

    Raises
    ------
    ValueError
        If it is such an SAE, or a pursuit without refit.
    """
    if getattr(base, "architecture", None) in PENALISED:
        raise ValueError(
            "of: expected a dictionary that keeps its number of non-zeros, got "
            f"{settings.of!r}, an SAE of architecture {base.architecture}, which a penalty holds"
        )
    if getattr(base, "refit", True) is False:
        raise ValueError(
            f"of: expected a pursuit with refit: true, got {settings.of!r} with refit: false"
        )


def _plan(settings: SplicedSettings, sizes: FitSizes) -> Work:
    """Return the work: two operations a weight and token, and twice as many for gradients.

    The whole model runs once an epoch, the blocks behind the site once more with gradients to their
    inputs only; held-out tokens are read before and after.
    """
    tokens = float(settings.training_tokens * settings.epochs)
    above = 1 - sizes.depth
    weights = float(sizes.model_parameters)
    passes = tokens * (1 + 2 * above) + 2 * settings.heldout_tokens * (1 + above)
    coding = 3 * 2.0 * sizes.n_atoms * sizes.width
    held = 4.0 * sizes.n_atoms * sizes.width + weights
    return Work(
        model=2 * weights * passes,
        products=coding * tokens,
        memory=held * FLOAT + 5e8,
        disk=2.0 * sizes.n_atoms * sizes.width * FLOAT,
    )


def _make_entry(settings: Any, ending: str) -> Method:
    return Method(
        settings=settings,
        fit=fit,
        plan=_plan,
        coding=None,
        label=lambda _given: ending,
        stage="train end to end",
        needs_model=True,
        find_base=lambda given: Base("of", given.of),
        check_base=check_base,
    )


E2E = _make_entry(E2ESettings, "e2e")
E2E_DOWNSTREAM = _make_entry(E2EDownstreamSettings, "e2e + downstream")
