"""What one key of a config says against what another says."""

from __future__ import annotations

from typing import Any

from dbksvd.fit.registry import BASE_KEYS, find_base
from dbksvd.fit.sae_settings import complete_settings, configure_architecture
from dbksvd.fit.schedule import split_groups
from dbksvd.saebench.registry import check_evals, list_datasets
from workflow.schema import ConfigError, suggest


def _check_seeds(model: dict[str, Any], fits: list[dict[str, Any]]) -> None:
    """Refuse a fit that could draw the true features: equal seeds, equal random vectors."""
    if model["kind"] == "synthsaebench" and any(model["seed"] in grid["seeds"] for grid in fits):
        raise ConfigError(
            "activations.synthetic.seed: expected a seed that no fit has, since SAELens draws the "
            f"features from it as a fit may draw its atoms, got {model['seed']}"
        )


def check_consistency(config: dict[str, Any]) -> None:
    """Check what one key says against what another says.

    Raises
    ------
    ConfigError
        For the first contradiction, in one line.
    """
    evals = config["evaluation"]["evals"]
    source = config["activations"]["source"]
    _check_bases(config["methods"])
    _check_ground_truth(config["activations"], evals)
    if source == "synthetic":
        _check_seeds(config["activations"]["synthetic"], config["fits"])
    if source == "model":
        for key in ("text", "model"):
            if key not in config:
                raise ConfigError(f"{key}: missing key, needed for activations.source: model")
    elif evals and source == "files":
        raise ConfigError(
            "evaluation.evals: expected {} for activations.source: files, since SAEBench runs the "
            f"model, got {', '.join(evals)}"
        )
    for split in ("train", "heldout"):
        _check_at_least_slices(config["activations"], f"n_{split}_tokens")
    if source == "model":
        _check_evals(config)
    for key in ("labels", "controls"):
        for method in config["figures"][key]:
            if method not in config["methods"]:
                raise ConfigError(
                    f"figures.{key}: expected names from methods"
                    f"{suggest(method, config['methods'])}, got {method!r}"
                )


def _check_bases(methods: dict[str, Any]) -> None:
    """Check that a method which begins from another's fit names one, and not in a circle."""
    for name, settings in methods.items():
        seen, base = [name], find_base(settings)
        while base is not None:
            key = next(key for key in BASE_KEYS if key in methods[seen[-1]])
            if base not in methods:
                raise ConfigError(
                    f"methods.{seen[-1]}.{key}: expected a name from methods"
                    f"{suggest(base, methods)}, got {base!r}"
                )
            if base in seen:
                raise ConfigError(
                    f"methods.{seen[-1]}.{key}: expected a method that does not begin from this "
                    f"one, got {base!r}"
                )
            seen.append(base)
            base = find_base(methods[base])


def check_sizes(settings: dict[str, Any], n_atoms: int, k: int, where: str, grid: int) -> None:
    """Check a method against the sizes of one of its fits: experts, heads, groups.

    Raises
    ------
    ConfigError
        If they do not fit; the message names a key of the method (below `where`) or of ``fits``.
    """
    try:
        if settings["algorithm"] == "sae":
            configure_architecture(complete_settings(settings), n_atoms, k)
        elif settings["algorithm"] == "dbksvd":
            split_groups(n_atoms, settings.get("groups"))
    except ValueError as error:
        message = str(error)
        place = f"fits[{grid}]" if message.startswith("k:") else where
        raise ConfigError(f"{place}.{message}") from error


def _check_evals(config: dict[str, Any]) -> None:
    """Check that evals can run on the model, and that no text they read is fitted."""
    evals = config["evaluation"]["evals"]
    try:
        check_evals(evals, config["model"])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    held_out = set(config["text"].get("held_out_datasets", ()))
    for name, settings in evals.items():
        for dataset in list_datasets({name: settings}):
            if dataset not in held_out:
                raise ConfigError(
                    f"evaluation.evals.{name}.datasets: expected names from "
                    f"text.held_out_datasets, so that no scored text is fitted, got {dataset!r}"
                )


def _check_ground_truth(activations: dict[str, Any], evals: dict[str, Any]) -> None:
    """Check that truth is scored where it is known, and that its generative model can be made."""
    source = activations["source"]
    if source != "synthetic":
        if "ground_truth" in evals:
            raise ConfigError(
                "evaluation.evals.ground_truth: expected activations.source: synthetic, whose "
                f"features are known, got {source}"
            )
        return
    if list(evals) != ["ground_truth"]:
        raise ConfigError(
            "evaluation.evals: expected ground_truth alone for activations.source: synthetic, "
            f"since there is no model to run, got {', '.join(evals) or 'none'}"
        )
    model = activations["synthetic"]
    for key, whole in (
        ("k", "num_features"),
        ("k", "features_per_component"),
        ("subspace_dim", "hidden_dim"),
    ):
        if key in model and whole in model and model[key] > model[whole]:
            raise ConfigError(
                f"activations.synthetic.{key}: expected at most {whole} = {model[whole]}, "
                f"got {model[key]}"
            )
    if model["kind"] == "block_correlated" and model["num_features"] % model["block_size"]:
        raise ConfigError(
            "activations.synthetic.block_size: expected a divisor of num_features = "
            f"{model['num_features']}, got {model['block_size']}"
        )


def _check_at_least_slices(activations: dict[str, Any], key: str) -> None:
    if activations[key] < activations["slices"]:
        raise ConfigError(
            f"activations.{key}: expected at least slices = {activations['slices']}, "
            f"got {activations[key]}"
        )
