"""Making a generative model, and keeping it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dbksvd.base.files import check_folder, hash_file, replace_folder, write_json
from dbksvd.synthetic.base import GenerativeModel
from dbksvd.synthetic.block_correlated import BlockCorrelated
from dbksvd.synthetic.expert_mixture import ExpertMixture
from dbksvd.synthetic.synthsaebench import SynthSAEBench

MANIFEST_FILE = "manifest.json"
KINDS: dict[str, type[GenerativeModel]] = {
    "synthsaebench": SynthSAEBench,
    "block_correlated": BlockCorrelated,
    "expert_mixture": ExpertMixture,
}


def make_model(settings: Mapping[str, Any], device: torch.device | str = "cpu") -> GenerativeModel:
    """Build a generative model.

    Parameters
    ----------
    settings : mapping
        ``kind`` and the settings of that kind.
    device : torch.device or str
        Where to build it.

    Raises
    ------
    ValueError
        If the kind is unknown or a setting cannot be used.
    """
    own = dict(settings)
    return _find_kind(own.pop("kind", None)).make(own, torch.device(device))


def save_model(
    model: GenerativeModel, settings: Mapping[str, Any], folder: str | Path
) -> dict[str, Any]:
    """Write a model as JSON and safetensors with a manifest of hashes; return the manifest."""
    with replace_folder(folder) as temporary:
        model.save(temporary)
        hashes = {file.name: hash_file(file) for file in sorted(temporary.iterdir())}
        manifest = {
            "settings": dict(settings),
            "n_features": len(model.features),
            "d": model.features.shape[1],
            "sha256": hashes,
        }
        write_json(temporary / MANIFEST_FILE, manifest)
    return manifest


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> GenerativeModel:
    """Read a model written by :func:`save_model`.

    Raises
    ------
    FileNotFoundError
        If there is no manifest.
    DamagedFileError
        If a file is missing or not what the manifest says.
    """
    folder = Path(folder)
    settings = check_folder(folder / MANIFEST_FILE)["settings"]
    own = {key: value for key, value in settings.items() if key != "kind"}
    return _find_kind(settings["kind"]).load(folder, own, torch.device(device))


def _find_kind(kind: str | None) -> type[GenerativeModel]:
    if kind not in KINDS:
        raise ValueError(
            f"activations.synthetic.kind: expected one of {', '.join(KINDS)}, got {kind!r}"
        )
    return KINDS[kind]
