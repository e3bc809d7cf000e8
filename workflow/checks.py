"""What one key of a config says against what another says."""

from __future__ import annotations

from typing import Any

from dbksvd.evaluation.saebench.registry import check_evals, list_datasets, list_hub_reads
from dbksvd.fit.baselines.pretrained_releases import check_published, find_layer
from dbksvd.fit.ksvd.schedule import split_groups
from dbksvd.fit.registry import BASE_KEYS, find_base
from dbksvd.fit.sae.settings import complete_settings, configure_architecture
from dbksvd.models.sizes import check_sizes as check_model_sizes
from dbksvd.models.sizes import find_config, read_sizes
from workflow.ground_truth_checks import check_at_least_slices, check_ground_truth
from workflow.schema import ConfigError, suggest


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
    _check_published(config)
    check_ground_truth(config)
    if source == "model":
        for key in ("text", "model"):
            if key not in config:
                raise ConfigError(f"{key}: missing key, needed for activations.source: model")
    elif evals and source == "files":
        raise ConfigError(
            "evaluation.evals: expected {} for activations.source: files, since SAEBench runs the "
            f"model, got {', '.join(evals)}"
        )
    elif source == "images":
        _check_images(config)
    for split in ("train", "heldout"):
        check_at_least_slices(config["activations"], f"n_{split}_tokens", "activations")
    if "stream" in config["activations"]:
        _check_stream(config)
    if "model" in config:
        _check_model(config["model"], config["activations"].get("layers", []))
    if source == "model":
        _check_evals(config)
    for key in ("labels", "controls"):
        for method in config["figures"][key]:
            if method not in config["methods"]:
                raise ConfigError(
                    f"figures.{key}: expected names from methods"
                    f"{suggest(method, config['methods'])}, got {method!r}"
                )


def _check_stream(config: dict[str, Any]) -> None:
    """Check that rows can be streamed: from text, and every one of them."""
    source = config["activations"]["source"]
    if source != "model":
        raise ConfigError(
            f"activations.stream: expected none for activations.source: {source}, since only text "
            "can be extracted again"
        )
    if config["shards"].get("outlier_norm_multiple") is not None:
        raise ConfigError(
            "shards.outlier_norm_multiple: expected none beside activations.stream, whose rows are "
            f"all used, got {config['shards']['outlier_norm_multiple']}"
        )


def _check_model(model: dict[str, Any], layers: list[int]) -> None:
    """Check layers against the model, as far as it is on this machine or ``expect`` tells it."""
    expected = model.get("expect", {})
    depth, name = expected.get("layers"), str(model.get("name") or model.get("package"))
    if "train" in model:
        if expected:
            raise ConfigError("model.expect: expected none beside model.train, which has its sizes")
        depth, name = model["train"].get("layers"), "model.train"
    else:
        try:
            path = find_config(model)
            if path is not None:
                sizes = read_sizes(path)
                check_model_sizes(expected, sizes, name)
                depth = sizes.layers
        except ValueError as error:
            raise ConfigError(str(error)) from error
    for position, layer in enumerate(layers):
        if depth is not None and layer > depth:
            raise ConfigError(
                f"activations.layers[{position}]: expected at most {depth}, the blocks of {name}, "
                f"got {layer}"
            )


def _check_images(config: dict[str, Any]) -> None:
    """Check what can be done with images, and that nothing is asked for that needs text."""
    for key in ("images", "model"):
        if key not in config:
            raise ConfigError(f"{key}: missing key, needed for activations.source: images")
    if evals := config["evaluation"]["evals"]:
        raise ConfigError(
            "evaluation.evals: expected {} for activations.source: images, since SAEBench gives "
            f"its models text, got {', '.join(evals)}"
        )
    if "prepend_bos" in config["model"]:
        raise ConfigError("model.prepend_bos: a token of text, unknown for images")
    if "train" in config["model"]:
        raise ConfigError("model.train: expected a vision encoder, got a language model to train")
    if "context_length" in config["activations"]:
        raise ConfigError("activations.context_length: a length of text, unknown for images")
    if "tile_stride" in config["images"] and "tile_size" not in config["images"]:
        raise ConfigError("images.tile_stride: expected images.tile_size beside it, got none")


def _check_published(config: dict[str, Any]) -> None:
    """Check that published SAEs are for the one layer there is, as far as is known of them."""
    layers = config["activations"].get("layers", [])
    for name, settings in config["methods"].items():
        if settings["algorithm"] != "pretrained" or "hook_module" in config["activations"]:
            continue
        try:
            layer = find_layer(settings)
        except ValueError as error:
            raise ConfigError(f"methods.{name}.{error}") from error
        if layer is not None and layers and layers != [layer]:
            raise ConfigError(
                f"methods.{name}: expected activations.layers: [{layer}] for an SAE of this place "
                f"(SAELens counts blocks from 0, layers count them from 1), got {layers}"
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
        if settings["algorithm"] == "permuted":
            _check_encoder(f"methods.{name}.of", settings["of"], methods[settings["of"]])


def _check_encoder(where: str, base: str, settings: dict[str, Any]) -> None:
    """Refuse to permute the decoder of a pursuit: that renames its atoms and changes nothing."""
    if settings["algorithm"] != "sae" or settings["architecture"] == "matching_pursuit":
        raise ConfigError(
            f"{where}: expected an SAE with an encoder of its own, since permuting the atoms of a "
            f"pursuit only renames them, got {base!r}"
        )


def check_sizes(settings: dict[str, Any], n_atoms: int, k: int, where: str, grid: str) -> None:
    """Check a method against the sizes of one of its fits: experts, heads, groups.

    Raises
    ------
    ConfigError
        If they do not fit; the message names a key of the method (below `where`) or of `grid`.
    """
    try:
        if settings["algorithm"] == "sae":
            configure_architecture(complete_settings(settings), n_atoms, k)
        elif settings["algorithm"] == "dbksvd":
            split_groups(n_atoms, settings.get("groups"))
        elif settings["algorithm"] == "pretrained":
            check_published(settings, n_atoms)
    except ValueError as error:
        message = str(error)
        place = grid if message.startswith(("k:", "n_atoms:")) else where
        raise ConfigError(f"{place}.{message}") from error


def _check_evals(config: dict[str, Any]) -> None:
    """Check that evals can run on the model, and that no text they read is fitted."""
    evals = config["evaluation"]["evals"]
    try:
        check_evals(evals, config["model"])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    _check_skipped(config["text"]["sources"], evals)
    held_out = set(config["text"].get("held_out_datasets", ()))
    for name, settings in evals.items():
        for dataset in list_datasets({name: settings}):
            if dataset not in held_out:
                raise ConfigError(
                    f"evaluation.evals.{name}.datasets: expected names from "
                    f"text.held_out_datasets, so that no scored text is fitted, got {dataset!r}"
                )


def _check_skipped(sources: list[dict[str, Any]], evals: dict[str, Any]) -> None:
    """Check that the beginning of a hub's data set, which an eval reads, is not fitted."""
    scored = {read["name"]: read["key"] for read in list_hub_reads(evals)}
    for position, source in enumerate(sources):
        if source.get("name") in scored and not source.get("skip"):
            raise ConfigError(
                f"text.sources[{position}].skip: expected a number of documents to leave to "
                f"{scored[source['name']]}, which reads {source['name']} from its beginning"
            )
