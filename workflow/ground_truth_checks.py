"""Checks of samples with known features: source synthetic, or the section ground_truth."""

from __future__ import annotations

from typing import Any

from workflow.schema import ConfigError


def check_ground_truth(config: dict[str, Any]) -> None:
    """Check that truth is scored where it is known, and that its generative model can be made.

    Raises
    ------
    ConfigError
        For the first contradiction, in one line.
    """
    activations, evals = config["activations"], config["evaluation"]["evals"]
    if activations["source"] == "synthetic":
        if "ground_truth" in config:
            raise ConfigError(
                "ground_truth: expected no such section for activations.source: synthetic, which "
                "is one itself"
            )
        if list(evals) != ["ground_truth"]:
            raise ConfigError(
                "evaluation.evals: expected ground_truth alone for activations.source: synthetic, "
                f"since there is no model to run, got {', '.join(evals) or 'none'}"
            )
        _check_generative_model(activations["synthetic"], "activations")
        _check_seeds(activations["synthetic"], config["fits"], "activations")
        return
    if "ground_truth" in evals:
        raise ConfigError(
            "evaluation.evals.ground_truth: expected activations.source: synthetic, whose "
            "features are known, or a section ground_truth beside evaluation, got "
            f"{activations['source']}"
        )
    if "ground_truth" in config:
        section = config["ground_truth"]
        _check_generative_model(section["synthetic"], "ground_truth")
        _check_seeds(section["synthetic"], section["fits"], "ground_truth")
        for split in ("train", "heldout"):
            check_at_least_slices(section, f"n_{split}_tokens", "ground_truth")


def _check_generative_model(model: dict[str, Any], where: str) -> None:
    for key, whole in (
        ("k", "num_features"),
        ("k", "features_per_component"),
        ("subspace_dim", "hidden_dim"),
    ):
        if key in model and whole in model and model[key] > model[whole]:
            raise ConfigError(
                f"{where}.synthetic.{key}: expected at most {whole} = {model[whole]}, "
                f"got {model[key]}"
            )
    if model["kind"] == "block_correlated" and model["num_features"] % model["block_size"]:
        raise ConfigError(
            f"{where}.synthetic.block_size: expected a divisor of num_features = "
            f"{model['num_features']}, got {model['block_size']}"
        )


def _check_seeds(model: dict[str, Any], fits: list[dict[str, Any]], where: str) -> None:
    """Refuse a fit that could draw the true features: equal seeds, equal random vectors."""
    if model["kind"] == "synthsaebench" and any(model["seed"] in grid["seeds"] for grid in fits):
        raise ConfigError(
            f"{where}.synthetic.seed: expected a seed that no fit has, since SAELens draws the "
            f"features from it as a fit may draw its atoms, got {model['seed']}"
        )


def check_at_least_slices(section: dict[str, Any], key: str, where: str) -> None:
    """Refuse fewer samples than slices in a section that stands at `where`.

    Raises
    ------
    ConfigError
        If there are fewer.
    """
    if section[key] < section["slices"]:
        raise ConfigError(
            f"{where}.{key}: expected at least slices = {section['slices']}, got {section[key]}"
        )
