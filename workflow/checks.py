"""What one section of a config says against what another says; each section checks itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dbksvd.base.settings import SettingsError, join, suggest
from dbksvd.evaluation.saebench.checks import check_evals, list_datasets, list_hub_reads
from dbksvd.fit.baselines.permuted import check_encoder
from dbksvd.fit.baselines.pretrained import find_layer
from dbksvd.fit.registry import find_method
from dbksvd.models.sizes import check_sizes as check_model_sizes
from dbksvd.models.sizes import find_config, find_kind, read_sizes
from workflow.config import ExperimentConfig
from workflow.ground_truth_checks import check_ground_truth
from workflow.labels import find_labels

# Sections that each source of activations needs.
NEEDED = {"model": ("text", "model"), "images": ("images", "model"), "files": (), "synthetic": ()}


def check_consistency(config: ExperimentConfig) -> None:
    """Check what one section says against what another says.

    Raises
    ------
    SettingsError
        For the first contradiction, in one line.
    """
    source = config.activations.source
    missing = [key for key in NEEDED[source] if getattr(config, key) is None]
    if missing:
        keys = "missing key" if len(missing) == 1 else "missing keys"
        raise SettingsError(
            f"{', '.join(missing)}: {keys}, needed for activations.source: {source}"
        )
    _check_bases(config.methods)
    _check_published(config)
    check_ground_truth(config)
    evals = config.evaluation.list_evals()
    if source in ("files", "images") and evals:
        reason = "runs the model" if source == "files" else "gives its models text"
        raise SettingsError(
            f"evaluation.evals: expected {{}} for activations.source: {source}, since SAEBench "
            f"{reason}, got {', '.join(evals)}"
        )
    if source == "images":
        _check_image_model(config)
    if config.model is not None:
        _check_model(config.model, getattr(config.activations, "layers", []))
    if source == "model":
        _check_stream(config)
        _check_evals(config)
    for method in config.figures.labels:
        if method not in config.methods:
            raise SettingsError(
                f"figures.labels: expected names from methods{suggest(method, config.methods)}, "
                f"got {method!r}"
            )
    _check_labels(config)


def _check_labels(config: ExperimentConfig) -> None:
    """Check that figures tell all methods apart: two of one label would be one line."""
    owners: dict[str, str] = {}
    labels = find_labels(config)
    # those of the config last, for them to be named
    for method in sorted(labels, key=lambda name: name in config.figures.labels):
        label = " ".join(labels[method].split())
        if label.startswith("_"):  # matplotlib leaves those out of legends
            raise SettingsError(
                f"figures.labels.{method}: expected a label that does not begin with _, "
                f"got {labels[method]!r}"
            )
        other = owners.setdefault(label, method)
        if other != method:
            raise SettingsError(
                f"figures.labels.{method}: expected a label that no other method has, "
                f"got {labels[method]!r}, the label of {other}"
            )


def _check_stream(config: ExperimentConfig) -> None:
    """Refuse to leave out rows that are streamed: they all are used."""
    multiple = config.shards.outlier_norm_multiple
    if getattr(config.activations, "stream", None) is not None and multiple is not None:
        raise SettingsError(
            "shards.outlier_norm_multiple: expected none beside activations.stream, whose rows are "
            f"all used, got {multiple:g}"
        )


def _check_model(model: Any, layers: list[int]) -> None:
    """Check layers against the model, as far as it is on this machine or ``expect`` tells it."""
    depth = model.expect.layers if model.expect is not None else None
    name = str(model.name or model.package)
    if model.train is not None:
        depth, name = model.train.layers, "model.train"
    else:
        path = _ask(find_config, model)
        if path is not None:
            sizes = _ask(read_sizes, path)
            _ask(check_model_sizes, model.expect, sizes, name)
            depth = sizes.layers
    for position, layer in enumerate(layers):
        if depth is not None and layer > depth:
            raise SettingsError(
                f"activations.layers[{position}]: expected at most {depth}, the blocks of {name}, "
                f"got {layer}"
            )


def _ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function of the package returns; its ValueError is one of the config."""
    try:
        return function(*arguments)
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _check_image_model(config: ExperimentConfig) -> None:
    """Refuse what only a language model can do."""
    assert config.model is not None
    if "prepend_bos" in config.model.model_fields_set:
        raise SettingsError("model.prepend_bos: a token of text, unknown for images")
    if config.model.train is not None:
        raise SettingsError("model.train: expected a vision encoder, got a language model to train")


def _check_published(config: ExperimentConfig) -> None:
    """Check that published SAEs are for the one layer there is, as far as is known of them."""
    layers = getattr(config.activations, "layers", [])
    hook_module = getattr(config.activations, "hook_module", None)
    for name, settings in config.methods.items():
        if settings.algorithm != "pretrained" or hook_module is not None:
            continue
        try:
            layer = find_layer(settings)
        except ValueError as error:
            raise SettingsError(f"methods.{name}.{error}") from error
        if layer is not None and layers and layers != [layer]:
            raise SettingsError(
                f"methods.{name}: expected activations.layers: [{layer}] for an SAE of this place "
                f"(SAELens counts blocks from 0, layers count them from 1), got {layers}"
            )


def _check_bases(methods: dict[str, Any]) -> None:
    """Check that a method which begins from another's fit names one, and not in a circle."""
    for name, settings in methods.items():
        seen, found = [name], find_method(settings.algorithm).find_base(settings)
        while found is not None:
            key, base = found
            where = f"methods.{seen[-1]}.{key}"
            if base not in methods:
                raise SettingsError(
                    f"{where}: expected a name from methods{suggest(base, methods)}, got {base!r}"
                )
            if base in seen:
                raise SettingsError(
                    f"{where}: expected a method that does not begin from this one, got {base!r}"
                )
            seen.append(base)
            found = find_method(methods[base].algorithm).find_base(methods[base])
        if settings.algorithm == "permuted":
            try:
                check_encoder(settings.of, methods[settings.of])
            except ValueError as error:
                raise SettingsError(f"methods.{name}.{error}") from error


def check_sizes(settings: Any, n_atoms: int, k: int, where: str, grid: str) -> None:
    """Check a method against the sizes of one of its fits: experts, heads, groups.

    Parameters
    ----------
    settings : Settings
        Of the method.
    n_atoms, k : int
        Sizes of the fit.
    where, grid : str
        Where the method and the grid stand in the config.

    Raises
    ------
    SettingsError
        If they do not fit; the message names a key of the method or of the grid.
    """
    try:
        find_method(settings.algorithm).check_sizes(settings, n_atoms, k)
    except ValueError as error:
        message = str(error)
        place = grid if message.startswith(("k:", "n_atoms:")) else where
        raise SettingsError(join(place, "") + f".{message}") from error


def _check_evals(config: ExperimentConfig) -> None:
    """Check that evals can run on the model, and that no text they read is fitted."""
    evals = config.evaluation.list_evals()
    _ask(check_evals, evals, _ask(find_kind, config.model))
    assert config.text is not None
    _check_skipped(config.text.sources, evals)
    if config.text.held_out_datasets is None:  # they follow from the evals
        return
    held_out = set(config.text.held_out_datasets)
    for name, settings in evals.items():
        for dataset in list_datasets({name: settings}):
            if dataset not in held_out:
                raise SettingsError(
                    f"evaluation.evals.{name}.datasets: expected names from "
                    f"text.held_out_datasets, so that no scored text is fitted, got {dataset!r}"
                )


def _check_skipped(sources: list[Any], evals: dict[str, Any]) -> None:
    """Check that the beginning of a hub's data set, which an eval reads, is not fitted."""
    scored = {read["name"]: read["key"] for read in list_hub_reads(evals)}
    for position, source in enumerate(sources):
        name = getattr(source, "name", None)
        if name in scored and not source.skip:
            raise SettingsError(
                f"text.sources[{position}].skip: expected a number of documents to leave to "
                f"{scored[name]}, which reads {name} from its beginning"
            )
