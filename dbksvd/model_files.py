"""What a model is, read from its files without loading it. Light to import: torch is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from dbksvd.files import read_json

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
_CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel")

ModelKind = Literal["encoder", "causal"]


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
    names = architectures or []
    return "causal" if any(name.endswith(_CAUSAL_SUFFIXES) for name in names) else "encoder"


def find_kind(settings: Mapping[str, Any]) -> ModelKind | None:
    """Return the kind of the model that a config's section ``model`` names.

    None where only loading it can tell: a model of the hub that is not on this machine yet.

    Raises
    ------
    ValueError
        If ``package`` carries no model.
    """
    if "train" in settings:
        return "causal"
    path: Path | str | None
    if "package" in settings:
        path = find_package_model(settings["package"]) / CONFIG_FILE
    elif (folder := Path(settings["name"]).expanduser()).is_dir():
        path = folder / CONFIG_FILE
    else:
        path = _find_in_cache(settings["name"], settings.get("revision"))
    if path is None or not Path(path).is_file():
        return None
    return tell_kind(read_json(path).get("architectures"))


def _find_in_cache(name: str, revision: str | None) -> str | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, CONFIG_FILE, revision=revision)
    except HFValidationError:  # a path: the folder is not there
        return None
    return found if isinstance(found, str) else None
