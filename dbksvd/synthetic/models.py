"""Making a generative model, and keeping it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dbksvd.base.files import check_folder, hash_file, write_json
from dbksvd.base.saving import Folder
from dbksvd.base.settings import parse
from dbksvd.synthetic.base import WEIGHTS_FILE, GenerativeModel
from dbksvd.synthetic.block_correlated import BlockCorrelated
from dbksvd.synthetic.expert_mixture import ExpertMixture
from dbksvd.synthetic.settings import GenerativeSettings, SyntheticSettings
from dbksvd.synthetic.synthsaebench import SynthSAEBench

MANIFEST_FILE = "manifest.json"
# SAELens's own names, of which TensorModel has the weights only
_FILES = ("synthetic_model_config.json", WEIGHTS_FILE, "hierarchy.json")
MODEL_FOLDER = Folder((MANIFEST_FILE, *_FILES), MANIFEST_FILE, ("settings", "n_features"))
KINDS: dict[str, type[GenerativeModel[Any]]] = {
    "synthsaebench": SynthSAEBench,
    "block_correlated": BlockCorrelated,
    "expert_mixture": ExpertMixture,
}


def make_model(
    settings: Mapping[str, Any] | GenerativeSettings, device: torch.device | str = "cpu"
) -> GenerativeModel[Any]:
    """Build a generative model.

    Parameters
    ----------
    settings : GenerativeSettings, or a mapping of the same keys
        ``kind`` and the settings of that kind.
    device : torch.device or str
        Where to build it.

    Raises
    ------
    ValueError
        If the kind is unknown or a setting cannot be used.
    """
    checked = _parse(settings)
    return KINDS[checked.kind].make(checked, torch.device(device))


def save_model(
    model: GenerativeModel[Any],
    settings: Mapping[str, Any] | GenerativeSettings,
    folder: str | Path,
) -> dict[str, Any]:
    """Write a model as JSON and safetensors with a manifest of hashes; return the manifest."""
    with MODEL_FOLDER.replace(folder) as temporary:
        model.save(temporary)
        hashes = {file.name: hash_file(file) for file in sorted(temporary.iterdir())}
        manifest = {
            "settings": _parse(settings).describe_model(),
            "n_features": len(model.features),
            "d": model.features.shape[1],
            "sha256": hashes,
        }
        write_json(temporary / MANIFEST_FILE, manifest)
    return manifest


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> GenerativeModel[Any]:
    """Read a model written by :func:`save_model`.

    Raises
    ------
    FileNotFoundError
        If there is no manifest.
    DamagedFileError
        If a file is missing or not what the manifest says.
    """
    folder = Path(folder)
    settings = _parse(check_folder(folder / MANIFEST_FILE)["settings"])
    return KINDS[settings.kind].load(folder, settings, torch.device(device))


def _parse(settings: Mapping[str, Any] | GenerativeSettings) -> GenerativeSettings:
    parsed: GenerativeSettings = parse(SyntheticSettings, settings, "activations.synthetic")
    return parsed
