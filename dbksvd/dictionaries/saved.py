"""The folder of a dictionary: its two files, what they must hold, and how they are replaced.

A folder has ``cfg.json`` and ``sae_weights.safetensors``. They cannot be replaced in one step, so
the weights come first and hold a copy of their config: where ``cfg.json`` is of another save, that
copy counts, and a save that was killed at any instant leaves the old dictionary or the new one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dbksvd.base.files import read_json
from dbksvd.base.layout import CONFIG_FILE, SEAL_FILE, WEIGHTS_FILE
from dbksvd.base.saving import check_files, resolve_folder, write_beside
from dbksvd.base.settings import Count, NonNegative, Settings, SettingsError, parse
from dbksvd.ops.pursuit.checks import check_penalties, check_settings

ARCHITECTURE = "dbksvd"
# Of one save: in cfg.json, and with a copy of the config in the weights' metadata.
SAVE_KEY = "save_id"
_COPY_KEY = "dbksvd"

_logger = logging.getLogger(__name__)


class SavedSettings(Settings):
    """What ``cfg.json`` of a dictionary must say; other keys are SAELens's."""

    model_config = ConfigDict(extra="ignore")

    architecture: Literal["dbksvd"]
    d_in: Count
    d_sae: Count
    k: Count
    method: Literal["mp", "omp", "ols"]
    nonnegative: bool
    refit: bool
    rtol: Annotated[float, Field(ge=0, lt=1)]
    metadata: dict[str, Any]
    # a file written before one of these settings existed means its default
    product_dtype: Literal["bfloat16"] | None = None
    threshold: NonNegative = 0.0
    penalties: list[float] | None = None
    # what SAELens does where these say otherwise is not what a Dictionary does
    apply_b_dec_to_input: Literal[True] = True
    normalize_activations: Literal["none"] = "none"
    reshape_activations: Literal["none"] = "none"
    sign_split: Literal[False] = False


def check_config(config: Mapping[str, Any], path: Path) -> SavedSettings:
    """Return the settings that a config says.

    Raises
    ------
    ValueError
        For an architecture that is not ours, or a key that is missing or wrong; the message names
        the file and the key.
    """
    if config.get("architecture") != ARCHITECTURE:
        raise ValueError(
            f"{path}: architecture: expected {ARCHITECTURE!r}, got "
            f"{config.get('architecture')!r}; dbksvd.load_dictionary reads every architecture"
        )
    if config.get("sign_split") is True:
        raise ValueError(
            f"{path}: sign_split: expected false, got an export with two latents for an atom; "
            "dbksvd.load_dictionary reads it"
        )
    try:
        found: SavedSettings = parse(SavedSettings, dict(config))
        check_settings(
            found.k, (found.d_sae, found.d_in), found.method, found.rtol, found.threshold
        )
        if found.penalties is not None:
            check_penalties(found.penalties, found.d_sae, found.method)
    except (SettingsError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config of the weights in a folder of any architecture.

    Raises
    ------
    FileNotFoundError, ValueError
        If ``cfg.json`` is missing or not a JSON object; the message names it.
    """
    path = folder / CONFIG_FILE
    config = read_json(path)
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(config).__name__}")
    if SAVE_KEY not in config or not (folder / WEIGHTS_FILE).is_file():
        return config
    copy = _read_copy(folder / WEIGHTS_FILE)
    if copy is None or copy.get(SAVE_KEY) == config[SAVE_KEY]:
        return config
    _logger.warning("%s: not used, it is of another save than the weights beside it", path)
    return copy


def _read_copy(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, framework="pt") as file:
            copy = json.loads((file.metadata() or {}).get(_COPY_KEY, "null"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected a whole safetensors file, got {error}") from error
    return copy if isinstance(copy, dict) else None


def read_weights(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Read a safetensors file that must hold the tensors `names`.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, cut short or lacks a tensor; the message names it.
    """
    if not path.is_file():  # of a folder, safetensors would say "No such device"
        raise FileNotFoundError(f"{path}: expected a file of weights, found none")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a whole safetensors file, got {error}") from error
    missing = set(names) - set(weights)
    if missing:
        raise ValueError(f"{path}: expected tensors {sorted(names)}, {sorted(missing)} missing")
    return weights


def check_place(path: str | Path) -> None:
    """Check that a dictionary can be written to a folder, before it is made.

    Raises
    ------
    ValueError
        As :func:`replace_dictionary`.
    """
    if (Path(path) / SEAL_FILE).exists():
        raise ValueError(
            f"{path}: expected a folder without {SEAL_FILE}, which says what the dictionary there "
            "is, got one with it"
        )
    check_files(resolve_folder(path), (WEIGHTS_FILE, CONFIG_FILE), _check_dictionary_file)


@contextmanager
def replace_dictionary(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder for a dictionary's two files, which replace those in `path`.

    Other files in `path` stay as they are.

    Raises
    ------
    ValueError
        If a file of these names is not a dictionary's, or is that of a fit of the workflow.
    """
    check_place(path)
    with write_beside(path, (WEIGHTS_FILE, CONFIG_FILE), _check_dictionary_file) as folder:
        yield folder


def _check_dictionary_file(path: Path) -> None:
    """Refuse to replace a file that is no dictionary's."""
    try:
        if path.name == CONFIG_FILE:
            config = read_json(path)
            is_ours = isinstance(config, dict) and {"d_in", "d_sae"} <= config.keys()
        elif (path.parent / CONFIG_FILE).is_file():
            return  # what stands beside a dictionary's config belongs to it, damaged or not
        else:
            with safe_open(path, framework="pt") as file:
                is_ours = "W_dec" in file.keys()  # noqa: SIM118
    except (ValueError, SafetensorError):
        is_ours = False
    if not is_ours:
        raise ValueError(f"{path}: expected a file of a dictionary, to be replaced, got another")


def write_dictionary(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> None:
    """Write both files, with the config in the weights too.

    Parameters
    ----------
    folder : path
        Where they go, as :func:`replace_dictionary` gives it.
    config : mapping
        JSON-able, without NaN.
    weights : mapping of str to tensor
        By name, on any device.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    digest = hashlib.sha256(json.dumps(config, allow_nan=False, sort_keys=True).encode())
    for name in sorted(plain):
        digest.update(plain[name].view(torch.uint8).numpy().data if plain[name].numel() else b"")
    signed = {**config, SAVE_KEY: digest.hexdigest()[:16]}
    save_file(
        plain, folder / WEIGHTS_FILE, metadata={_COPY_KEY: json.dumps(signed, sort_keys=True)}
    )
    (folder / CONFIG_FILE).write_text(json.dumps(signed, indent=2) + "\n")


def save_sae(save: Callable[[Path], Any], path: str | Path) -> tuple[Path, Path]:
    """Let SAELens write an SAE of ours, and put its files where they belong.

    Parameters
    ----------
    save : callable
        SAELens's own method, which writes into a folder.
    path : path
        Folder of the SAE; other files there stay.

    Returns
    -------
    tuple of paths
        Weights and config, as SAELens's method returns them.

    Raises
    ------
    ValueError
        As :func:`replace_dictionary`.
    """
    with replace_dictionary(path) as folder:
        save(folder)
        write_dictionary(folder, read_json(folder / CONFIG_FILE), load_file(folder / WEIGHTS_FILE))
    return Path(path) / WEIGHTS_FILE, Path(path) / CONFIG_FILE


def check_weights(weights: Mapping[str, Tensor], found: SavedSettings, path: Path) -> None:
    """Check shapes and dtypes of the tensors of a dictionary.

    Raises
    ------
    ValueError
        The message names file, tensor, what was expected and what came.
    """
    for name, shape in (("W_dec", (found.d_sae, found.d_in)), ("b_dec", (found.d_in,))):
        tensor = weights[name]
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            raise ValueError(
                f"{path}: {name}: expected floats of shape {shape}, as {CONFIG_FILE} says, got "
                f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
            )
        if not math.isfinite(float(tensor.abs().max())):
            raise ValueError(f"{path}: {name}: expected finite values, got NaN or infinity")
