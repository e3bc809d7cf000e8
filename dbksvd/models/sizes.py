"""What a model is, read from its files without loading it. Light to import: torch is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dbksvd.base.files import read_json
from dbksvd.base.settings import parse
from dbksvd.models.attributes import find_attribute_map, read_attributes
from dbksvd.models.gguf_header import read_header
from dbksvd.models.places import CONFIG_FILE, find_config
from dbksvd.models.settings import ExpectedSizes, ModelSettings
from dbksvd.models.weights import count_weights

_CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel")
TOLERANCE = 0.01  # of the number of parameters, which is counted with or without tied weights

ModelKind = Literal["encoder", "causal"]


@dataclass(frozen=True)
class ModelSizes:
    """Width d of the activations, number of blocks, number of weights (None: not known)."""

    width: int
    layers: int
    parameters: int | None = None


def tell_kind(architectures: list[str] | None) -> ModelKind:
    """Return ``"causal"`` for the architectures of a language model with a head."""
    names = architectures if isinstance(architectures, list) else []
    return "causal" if any(str(name).endswith(_CAUSAL_SUFFIXES) for name in names) else "encoder"


def find_kind(settings: Mapping[str, Any] | ModelSettings) -> ModelKind | None:
    """Return the kind of the model that a config's section ``model`` names.

    None where only loading it can tell: a model of the hub that is not on this machine yet.

    Raises
    ------
    ValueError
        If ``package`` carries no model.
    """
    path = find_config(settings)
    if path is None:
        return None
    if path.name != CONFIG_FILE:
        return "causal"  # nothing else is converted from GGUF
    return tell_kind(read_config(path).get("architectures"))


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a ``config.json``.

    Raises
    ------
    ValueError
        If the file is no JSON object; the message names it.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(config).__name__}")
    return config


def read_sizes(path: Path) -> ModelSizes:
    """Return width and layers as a ``config.json`` or the header of a GGUF file has them.

    Raises
    ------
    ValueError
        If neither the file nor transformers' class for it names a width and a number of layers.
    """
    if path.name != CONFIG_FILE:
        header = read_header(path)
        return ModelSizes(header.width, header.layers, header.parameters)
    return ModelSizes(*read_attributes(read_config(path), path))


def read_model_type(path: Path) -> str | None:
    """Return the ``model_type`` of the text model in a ``config.json``, or a GGUF's architecture.

    None where a config does not say it.
    """
    if path.name != CONFIG_FILE:
        return read_header(path).architecture
    config = read_config(path)
    text = config.get("text_config", config)
    found = text.get("model_type") if isinstance(text, Mapping) else None
    return found if isinstance(found, str) else None


def read_positions(path: Path) -> int | None:
    """Return the most tokens that a model takes, as its config or the header of a GGUF file says.

    None where a config does not say it. A model may take fewer, as RoBERTa does, whose positions
    begin behind that of padding; loading it tells.
    """
    if path.name != CONFIG_FILE:
        return read_header(path).positions
    config = read_config(path)
    text = config.get("text_config", config)
    if not isinstance(text, Mapping):
        return None
    names = find_attribute_map(str(text.get("model_type", "")))
    keys = ("max_position_embeddings", "max_seq_len")
    found = [text.get(names.get(key, key), text.get(key)) for key in keys]
    return min((value for value in found if type(value) is int and value > 0), default=None)


def find_sizes(settings: Mapping[str, Any] | ModelSettings | None) -> ModelSizes | None:
    """Return the sizes of the model in a section ``model``, offline and without loading it.

    From the model's files if they are on this machine, or from ``expect``. None where neither
    tells, or there is no such section.

    Raises
    ------
    ValueError
        If ``package`` carries no model, or a file says no sizes.
    """
    if not settings:
        return None
    settings = parse(ModelSettings, settings, "model")
    path = find_config(settings)
    if path is not None:
        sizes = read_sizes(path)
        return replace(sizes, parameters=sizes.parameters or count_parameters(path.parent))
    expected = settings.expect
    if expected is None or expected.width is None or expected.layers is None:
        return None
    return ModelSizes(expected.width, expected.layers, expected.parameters)


def count_parameters(folder: Path) -> int | None:
    """Return the number of weights in the safetensors files of a folder; None without any."""
    return sum(map(count_weights, sorted(folder.glob("model*.safetensors")))) or None


def check_sizes(
    expected: Mapping[str, Any] | ExpectedSizes | None, got: ModelSizes, name: str
) -> None:
    """Check a model against ``model.expect``; what it leaves out is not checked.

    Raises
    ------
    ValueError
        For the first size that differs; parameters may differ by `TOLERANCE`.
    """
    if not expected:
        return
    expected = parse(ExpectedSizes, expected, "model.expect")
    for key in ("width", "layers", "parameters"):
        wanted, actual = getattr(expected, key), getattr(got, key)
        if wanted is None or actual is None:
            continue
        allowed = TOLERANCE * wanted if key == "parameters" else 0
        if abs(wanted - actual) > allowed:
            raise ValueError(f"model.expect.{key}: expected {wanted} in {name}, got {actual}")
