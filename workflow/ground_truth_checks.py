"""Checks of samples with known features: source synthetic, or the section ground_truth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dbksvd.base.settings import SettingsError

if TYPE_CHECKING:
    from workflow.config import ExperimentConfig, Grid


def check_ground_truth(config: ExperimentConfig) -> None:
    """Check that truth is scored where it is known, and that no fit could draw it.

    Raises
    ------
    SettingsError
        For the first contradiction, in one line.
    """
    activations, evals = config.activations, config.evaluation.list_evals()
    if activations.source == "synthetic":
        if config.ground_truth is not None:
            raise SettingsError(
                "ground_truth: expected no such section for activations.source: synthetic, which "
                "is one itself"
            )
        if evals.keys() - {"ground_truth"}:
            raise SettingsError(
                "evaluation.evals: expected ground_truth alone for activations.source: synthetic, "
                f"since there is no model to run, got {', '.join(evals)}"
            )
        _check_seeds(activations.synthetic, config.fits, "activations")
        return
    if "ground_truth" in evals:
        raise SettingsError(
            "evaluation.evals.ground_truth: expected activations.source: synthetic, whose "
            "features are known, or a section ground_truth beside evaluation, got "
            f"{activations.source}"
        )
    if config.ground_truth is not None:
        _check_seeds(config.ground_truth.synthetic, config.ground_truth.fits, "ground_truth")


def _check_seeds(model: Any, fits: Iterable[Grid], where: str) -> None:
    """Refuse a fit that could draw the true features: equal seeds, equal random vectors."""
    if model.kind == "synthsaebench" and any(model.seed in grid.seeds for grid in fits):
        raise SettingsError(
            f"{where}.synthetic.seed: expected a seed that no fit has, since SAELens draws the "
            f"features from it as a fit may draw its atoms, got {model.seed}"
        )
