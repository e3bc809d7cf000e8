"""What a model is, read from its files without loading it. Light to import: torch is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from dbksvd.base.files import read_json
from dbksvd.base.local_files import expand_user, is_path
from dbksvd.base.settings import parse
from dbksvd.models.attributes import find_attribute_map, read_attributes
from dbksvd.models.settings import ExpectedSizes, ModelSettings
from dbksvd.models.weights import WEIGHTS_FILE, count_weights

CONFIG_FILE = "config.json"
_CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel")
TOLERANCE = 0.01  # of the number of parameters, which is counted with or without tied weights

ModelKind = Literal["encoder", "causal"]


@dataclass(frozen=True)
class ModelSizes:
    """Width d of the activations, number of blocks, number of weights (None: not known)."""

    width: int
    layers: int
    parameters: int | None = None


def find_package_model(package: str) -> Path:
    """Return the folder with config and safetensors weights that a distribution carries.

    The package is not imported: the list of its files comes from its metadata.

    Raises
    ------
    ValueError
        If the distribution is not installed or carries no such folder.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise ValueError(
            f"model.package: expected an installed distribution, {package!r} is not installed"
        ) from error
    configs = {file.parent for file in files if file.name == CONFIG_FILE}
    for file in files:
        if file.name == WEIGHTS_FILE and file.parent in configs:
            return Path(str(file.locate())).parent
    raise ValueError(
        f"model.package: expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE} in {package!r}, "
        f"found none in its {len(files)} files"
    )


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
    settings = parse(ModelSettings, settings, "model")
    if settings.train is not None:
        return "causal"
    path = find_config(settings)
    return None if path is None else tell_kind(read_config(path).get("architectures"))


def find_config(settings: Mapping[str, Any] | ModelSettings) -> Path | None:
    """Return the ``config.json`` of the model in a section ``model``, if it is on this machine.

    A path where nothing is yet has none: :func:`find_folder` says what is wrong with it.

    Raises
    ------
    ValueError
        If ``package`` carries no model.
    """
    settings = parse(ModelSettings, settings, "model")
    path: Path | str | None = None
    if settings.package is not None:
        path = find_package_model(settings.package) / CONFIG_FILE
    elif settings.name is not None:
        folder = expand_user(settings.name)
        if folder.is_dir():
            path = folder / CONFIG_FILE
        elif not is_path(settings.name):
            path = _find_in_cache(settings.name, settings.revision)
    return Path(path) if path is not None and Path(path).is_file() else None


def find_folder(name: str) -> Path | None:
    """Return the model folder that ``model.name`` is; None for a name on the hub.

    Raises
    ------
    FileNotFoundError
        If the name is a path, and no folder with a ``config.json`` is there; the message has the
        absolute path.
    """
    folder = expand_user(name)
    if folder.is_dir():
        if not (folder / CONFIG_FILE).is_file():
            raise FileNotFoundError(
                f"model.name: expected a model folder with {CONFIG_FILE}, found none in "
                f"{folder.absolute()}"
            )
        return folder
    if folder.exists():
        raise FileNotFoundError(
            f"model.name: expected a model folder, got the file {folder.absolute()}"
        )
    if is_path(name):
        raise FileNotFoundError(
            f"model.name: expected a model folder, found none at {folder.absolute()}"
        )
    return None


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
    """Return width and layers as a ``config.json`` has them, under the names of its class.

    Raises
    ------
    ValueError
        If neither the file nor transformers' class for it names a width and a number of layers.
    """
    return ModelSizes(*read_attributes(read_config(path), path))


def read_positions(path: Path) -> int | None:
    """Return the most tokens that a ``config.json`` says its model takes; None where it does not.

    A model may take fewer, as RoBERTa does, whose positions begin behind that of padding; loading
    it tells.
    """
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

    From ``train``, from the model's files if they are on this machine, or from ``expect``. The
    parameters of a model to train are 12·L·d² + 2·V·d. None where none of the three tells, or
    there is no such section.

    Raises
    ------
    ValueError
        If ``package`` carries no model.
    """
    if not settings:
        return None
    settings = parse(ModelSettings, settings, "model")
    if (train := settings.train) is not None:
        d, layers = train.width, train.layers
        return ModelSizes(d, layers, 12 * layers * d * d + 2 * train.vocabulary * d)
    path = find_config(settings)
    if path is not None:
        return replace(read_sizes(path), parameters=count_parameters(path.parent))
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


def _find_in_cache(name: str, revision: str | None) -> str | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, CONFIG_FILE, revision=revision)
    except HFValidationError:  # a path: the folder is not there
        return None
    return found if isinstance(found, str) else None
