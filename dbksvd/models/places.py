"""Where the model of a section ``model`` is on this machine. Light to import: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from dbksvd.base.local_files import expand_user, is_path, require_file
from dbksvd.base.settings import parse
from dbksvd.models.settings import ModelSettings
from dbksvd.models.weights import WEIGHTS_FILE

CONFIG_FILE = "config.json"
GGUF_ENDING = ".gguf"


def find_package_model(package: str) -> Path:
    """Return the folder with config and safetensors weights, or the GGUF file, of a distribution.

    The package is not imported: the list of its files comes from its metadata.

    Raises
    ------
    ValueError
        If the distribution is not installed or carries neither, or several GGUF files.
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
    found = [file for file in files if file.suffix == GGUF_ENDING]
    if len(found) == 1:
        return Path(str(found[0].locate()))
    names = f": {', '.join(file.name for file in found)}" if found else ""
    raise ValueError(
        f"model.package: expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or one "
        f"{GGUF_ENDING} file, in {package!r}, found {len(found) or 'none'} in its {len(files)} "
        f"files{names}"
    )


def find_gguf(settings: Mapping[str, Any] | ModelSettings) -> Path | None:
    """Return the GGUF file that a section ``model`` names; None for a model in another form.

    Raises
    ------
    ValueError
        If ``package`` carries no model, or there is no file at ``gguf``.
    """
    settings = parse(ModelSettings, settings, "model")
    if settings.gguf is not None:
        return require_file(settings.gguf, "model.gguf", "a GGUF file")
    if settings.package is None:
        return None
    found = find_package_model(settings.package)
    return found if found.suffix == GGUF_ENDING else None


def find_config(settings: Mapping[str, Any] | ModelSettings) -> Path | None:
    """Return the file that says what the model is, if it is on this machine.

    It is a ``config.json``, or a GGUF file, whose header says the same. A path where nothing is
    yet has none: :func:`find_folder` says what is wrong with it.

    Raises
    ------
    ValueError
        As :func:`find_gguf`.
    """
    settings = parse(ModelSettings, settings, "model")
    path: Path | str | None = find_gguf(settings)
    if path is not None:
        return Path(path)
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


def _find_in_cache(name: str, revision: str | None) -> str | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, CONFIG_FILE, revision=revision)
    except HFValidationError:  # a path: the folder is not there
        return None
    return found if isinstance(found, str) else None
