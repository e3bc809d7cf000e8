"""Checks of samples with known features: source synthetic, or the section ground_truth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dbksvd.base.settings import LARGEST_SEED, SettingsError

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


def check_seed(seed: int, where: str, drawing: Any) -> None:
    """Check the seed of a fit that no grid names, since only another one begins from it.

    Parameters
    ----------
    seed : int
        Of the fit.
    where : str
        Where its method stands in the config.
    drawing : Settings or None
        What samples are drawn from, where the fit reads them.

    Raises
    ------
    SettingsError
        If no fit can have that seed, or it is the one that the features are drawn from.
    """
    if seed > LARGEST_SEED:
        raise SettingsError(
            f"{where}: expected seeds up to {LARGEST_SEED} in fits that others begin from, "
            f"got {seed}"
        )
    if drawing is not None and drawing.synthetic.kind == "synthsaebench":
        model = drawing.synthetic
        if model.seed == seed:
            raise SettingsError(
                f"{where}: expected fits that others begin from to have other seeds than the "
                f"synthetic model, got {seed}"
            )


def _check_seeds(model: Any, fits: Iterable[Grid], where: str) -> None:
    """Refuse a fit that could draw the true features: equal seeds, equal random vectors."""
    if model.kind == "synthsaebench" and any(model.seed in grid.seeds for grid in fits):
        raise SettingsError(
            f"{where}.synthetic.seed: expected a seed that no fit has, since SAELens draws the "
            f"features from it as a fit may draw its atoms, got {model.seed}"
        )
