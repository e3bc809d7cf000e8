"""What is said and known of a published SAE before it is fetched. Needs no torch."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import model_validator

from dbksvd.base.files import read_json
from dbksvd.base.layout import CONFIG_FILE, WEIGHTS_FILE
from dbksvd.base.local_files import expand_user, read_tensor_headers, require_file, tell_path
from dbksvd.base.settings import Text, suggest
from dbksvd.fit.method import MethodSettings

# SAELens's list of releases; read as a file, since importing SAELens takes seconds.
LIST_FILE = "pretrained_saes.yaml"


class PretrainedSettings(MethodSettings):
    """A published SAE: by its release and id, or a folder."""

    algorithm: Literal["pretrained"] = "pretrained"
    """The method's name in the registry."""
    release: Text | None = None
    """A name in SAELens's list of releases, or a repository of the hub."""
    id: Text | None = None
    """Which SAE of the release, as SAELens's ``SAE.from_pretrained`` takes it."""
    path: Text | None = None
    """A local folder in SAELens's layout, in place of release and id."""

    @model_validator(mode="after")
    def _check_source(self) -> PretrainedSettings:
        given = [key for key in ("path", "release", "id") if getattr(self, key) is not None]
        if ("path" in given) == ("release" in given or "id" in given):
            raise ValueError(
                "expected exactly one of the keys path or release, "
                f"got {' and '.join(given) or 'none'}"
            )
        for key in ("release", "id"):
            if "path" not in given and key not in given:
                raise ValueError(f"{key}: missing key")
        return self


def check_published(settings: PretrainedSettings, n_atoms: int) -> None:
    """Check that a published SAE exists, as far as that can be told without a hub.

    Parameters
    ----------
    settings : PretrainedSettings
        Which SAE.
    n_atoms : int
        Latents that it must have.

    Raises
    ------
    ValueError
        If the folder holds no SAE or one of another width, or SAELens's list has no such release
        or id.
    """
    if settings.path is not None:
        width = _read_config(settings.path).get("d_sae")
        if width != n_atoms:
            raise ValueError(
                f"n_atoms: expected {width}, the width of {settings.path}, got {n_atoms}"
            )
        return
    release, name = settings.release, settings.id
    assert release is not None
    assert name is not None
    listed, names = _read_release(release)
    if listed:
        ids = [sae["id"] for sae in listed["saes"]]
        if name not in ids:
            raise ValueError(
                f"id: expected one of the {len(ids)} SAEs of {release}"
                f"{suggest(name, ids)}, got {name!r}"
            )
    elif names and "/" not in release:
        raise ValueError(
            "release: expected a release in SAELens's list or a repository of the hub"
            f"{suggest(release, names)}, got {release!r}"
        )


def check_weights(settings: PretrainedSettings, n_atoms: int, width: int) -> None:
    """Check the weights of an SAE in a local folder by their header.

    Parameters
    ----------
    settings : PretrainedSettings
        Which SAE; one of a release is accepted.
    n_atoms, width : int
        Latents, and the width of the activations.

    Raises
    ------
    ValueError
        If the file is damaged or no file of tensors, or its decoder has another shape.
    """
    if settings.path is None:
        return
    path = require_file(
        expand_user(settings.path) / WEIGHTS_FILE, "path", f"a folder with {WEIGHTS_FILE}"
    )
    decoder = read_tensor_headers(path).get("W_dec")
    if decoder is not None and decoder.shape != (n_atoms, width):
        raise ValueError(
            f"path: expected a decoder of shape ({n_atoms}, {width}), n_atoms and the width of the "
            f"activations, got {decoder.shape} in {path}"
        )


def find_layer(settings: PretrainedSettings) -> int | None:
    """Return the layer whose output a published SAE is for, counted as our layers are.

    None where its config has to be fetched to know, or where it is not for the output of a block.
    """
    if settings.path is not None:
        config = _read_config(settings.path)
        hook_name = (config.get("metadata") or config).get("hook_name")
        return read_layer(hook_name or "")
    release, name = settings.release, settings.id
    assert release is not None
    assert name is not None
    listed, _ = _read_release(release)
    if listed.get("conversion_func") == "gemma_2" and listed["repo_id"].endswith("-res"):
        found = re.match(r"layer_(\d+)/", name)
        return int(found[1]) + 1 if found else None
    found = re.match(r"blocks\.\d+\.hook_resid_(pre|post)", name)
    return read_layer(found[0]) if found else None


def read_layer(hook_name: str) -> int | None:
    """Return our number of the layer in TransformerLens's name of a place in the residual stream.

    TransformerLens counts blocks from 0; our layer L is the output of block L counted from 1.

    Examples
    --------
    >>> read_layer("blocks.12.hook_resid_post"), read_layer("blocks.8.hook_resid_pre")
    (13, 8)
    """
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", hook_name)
    return None if found is None else int(found[1]) + (found[2] == "post")


def _read_config(path: str) -> dict[str, Any]:
    folder = expand_user(path)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ValueError(
                f"path: expected a folder with {name}, found none in {tell_path(path)}"
            )
    config = read_json(folder / CONFIG_FILE)
    for key in ("d_in", "d_sae"):  # SAELens takes a missing one as None
        found = config.get(key) if isinstance(config, dict) else None
        if not isinstance(found, int):
            raise ValueError(
                f"path: {folder / CONFIG_FILE}: {key}: expected a whole number, got {found!r}"
            )
    return dict(config)


@cache
def _read_release(release: str) -> tuple[dict[str, Any], list[str]]:
    """Return a release's entry in SAELens's list, empty if there is none, and all names there.

    Where SAELens is not installed the list is empty.
    """
    spec = find_spec("sae_lens")
    if spec is None or not spec.submodule_search_locations:
        return {}, []
    text = (Path(spec.submodule_search_locations[0]) / LIST_FILE).read_text()
    # Parsing 1.5 MB of YAML takes seconds, so only the lines below the name are parsed.
    names = re.findall(r"^([\w.-]+):$", text, flags=re.MULTILINE)
    if release not in names:
        return {}, names
    found = re.search(rf"^{re.escape(release)}:\n((?: .*\n?)+)", text, flags=re.MULTILINE)
    return (yaml.safe_load(found[1]) if found else {}), names
