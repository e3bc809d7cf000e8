"""What one section of a config says against what another says; each section checks itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dbksvd.base.settings import SettingsError, suggest
from dbksvd.base.settings_errors import Problems
from dbksvd.evaluation.saebench.checks import (
    check_context,
    check_eval,
    list_datasets,
    list_hub_reads,
)
from dbksvd.evaluation.saebench.registry import find_eval
from dbksvd.models.places import find_config, find_gguf
from dbksvd.models.sizes import check_sizes as check_model_sizes
from dbksvd.models.sizes import find_kind, read_model_type, read_positions, read_sizes
from workflow.config import ExperimentConfig
from workflow.encoder_checks import check_encoders
from workflow.ground_truth_checks import check_ground_truth
from workflow.labels import find_labels
from workflow.method_checks import check_base, check_model, check_published, check_unused
from workflow.place_checks import check_eval_places, check_places

# Sections that each source of activations needs.
NEEDED = {"model": ("text", "model"), "images": ("images", "model"), "files": (), "synthetic": ()}


def check_consistency(config: ExperimentConfig) -> None:
    """Check what one section says against what another says.

    Raises
    ------
    SettingsError
        With all contradictions, in one line each.
    """
    problems = Problems()
    problems.catch(_check_sections, config)
    for name in config.methods:
        problems.catch(check_base, name, config.methods)
        problems.catch(check_model, name, config)
        problems.catch(check_published, name, config)
        problems.catch(check_unused, name, config.methods[name])
    problems.catch(check_ground_truth, config)
    problems.catch(_check_randomised, config)
    problems.catch(check_encoders, config)
    problems.catch(_check_labels, config)
    if config.model is not None:
        problems.catch(_check_origin, config.model)
        problems.catch(_check_model, config.model, config.activations)
    if config.activations.source == "images" and config.model is not None:
        problems.catch(_check_image_model, config)
    if config.activations.source == "model":
        problems.catch(_check_evals, config)
    problems.tell()


def _check_sections(config: ExperimentConfig) -> None:
    """Check that the sections are there that the source needs, and none that it does not read."""
    source, problems = config.activations.source, []
    missing = [key for key in NEEDED[source] if getattr(config, key) is None]
    if missing:
        keys = "missing key" if len(missing) == 1 else "missing keys"
        problems.append(f"{', '.join(missing)}: {keys}, needed for activations.source: {source}")
    problems += [
        f"{key}: expected no such section for activations.source: {source}, which does not read it"
        for key in ("text", "images", "model")
        if key not in NEEDED[source] and getattr(config, key) is not None
    ]
    evals = config.evaluation.list_evals().keys() - {"ground_truth"}  # check_ground_truth has it
    if source in ("files", "images") and evals:
        reason = "runs the model" if source == "files" else "gives its models text"
        problems.append(
            f"evaluation.evals: expected {{}} for activations.source: {source}, since SAEBench "
            f"{reason}, got {', '.join(sorted(evals))}"
        )
    if problems:
        raise SettingsError(*problems)


def _check_randomised(config: ExperimentConfig) -> None:
    """Refuse random weights where no model reads text, or where the model has them itself."""
    if config.randomised is None:
        return
    if config.activations.source != "model":
        raise SettingsError(
            "randomised: expected no such section for activations.source: "
            f"{config.activations.source}, which takes no layers of a model of text"
        )
    if config.model is not None and config.model.randomise is not None:
        raise SettingsError(
            "randomised: expected no such section beside model.randomise, which draws the "
            "weights of the whole experiment anew"
        )


def _check_labels(config: ExperimentConfig) -> None:
    """Check that figures tell all methods apart: two of one label would be one line."""
    for method in config.figures.labels:
        if method not in config.methods:
            raise SettingsError(
                f"figures.labels: expected names from methods{suggest(method, config.methods)}, "
                f"got {method!r}"
            )
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


def _check_origin(model: Any) -> None:
    """Refuse what says which weights are meant where nothing reads it."""
    if model.name is None and model.revision is not None:
        origin = "package" if model.package is not None else "gguf"
        raise SettingsError(f"model.revision: no use beside model.{origin}")


def _check_model(model: Any, activations: Any) -> None:
    """Check layers against the model, as far as it is on this machine or ``expect`` tells it."""
    layers = getattr(activations, "layers", [])
    depth = model.expect.layers if model.expect is not None else None
    name = model.shown_name
    path = _ask(find_config, model)
    check_places(activations, None if path is None else _ask(read_model_type, path))
    if path is not None:
        sizes = _ask(read_sizes, path)
        _ask(check_model_sizes, model.expect, sizes, name)
        depth = sizes.layers
        _check_context(activations, _ask(read_positions, path), name)
    for position, layer in enumerate(layers):
        if depth is not None and layer > depth:
            raise SettingsError(
                f"activations.layers[{position}]: expected at most {depth}, the blocks of {name}, "
                f"got {layer}"
            )


def _check_context(activations: Any, most: int | None, name: str) -> None:
    length = getattr(activations, "context_length", None)
    if most is not None and length is not None and length > most:
        raise SettingsError(
            f"activations.context_length: expected at most {most}, the positions of {name}, "
            f"got {length}"
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
    if _ask(find_gguf, config.model) is not None:
        raise SettingsError("model: expected a vision encoder, got a language model in a GGUF file")


def _check_evals(config: ExperimentConfig) -> None:
    """Check that evals can run on the model, and that no text they read is fitted."""
    problems, evals = Problems(), config.evaluation.list_evals()
    kind = None if config.model is None else problems.catch(_ask, find_kind, config.model)
    path = None if config.model is None else problems.catch(_ask, find_config, config.model)
    most = None if path is None else problems.catch(_ask, read_positions, path)
    of = "" if config.model is None else config.model.shown_name
    for name, settings in evals.items():
        problems.catch(_ask, check_eval, name, settings, kind)
        problems.catch(_ask, check_context, name, settings, most, of)
    scored = [name for name in evals if not find_eval(name).needs_truth]
    problems.catch(check_eval_places, config.activations, scored)
    if config.text is not None:
        problems.catch(_check_skipped, config.text.sources, evals)
        problems.catch(_check_held_out, config.text.held_out_datasets, evals)
    problems.tell()


def _check_held_out(held_out: list[str] | None, evals: dict[str, Any]) -> None:
    if held_out is None:  # they follow from the evals
        return
    problems = [
        f"evaluation.evals.{name}.datasets: expected names from text.held_out_datasets, so that no "
        f"scored text is fitted, got {dataset!r}"
        for name, settings in evals.items()
        for dataset in list_datasets({name: settings})
        if dataset not in set(held_out)
    ]
    if problems:
        raise SettingsError(*problems)


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
