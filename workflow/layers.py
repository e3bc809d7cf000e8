"""Config files laid over one another: a later file says what differs from the earlier ones.

Snakemake merges config files key by key. That alone makes contradictions that nobody wrote, such as
the default experiment's ``model.package`` beside one's own ``model.name``. Here a mapping of
another kind replaces the one below it, and ``null`` takes a key away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workflow.config_files import read_config_file

# Keys that say of which kind a mapping is.
KINDS = ("algorithm", "architecture", "kind", "source")
# Keys that exclude each other, by the section that they stand in.
CHOICES = {"model": ("package", "name", "train"), "methods.*": ("path", "release")}
DEFAULT_SOURCE = "model"
# Sections that belong to the source of the activations.
SOURCED = ("text", "images", "model", "evaluation", "ground_truth")


def read_layers(paths: Iterable[str | Path], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config that files and overrides make together.

    Parameters
    ----------
    paths : iterable of path
        Config files, YAML or JSON; a later one lies over the earlier ones.
    overrides : mapping
        What ``--config`` of the command line says; it lies over all files.

    Raises
    ------
    SettingsError
        If a file cannot be read, holds no mapping, or names a key twice.
    """
    config: dict[str, Any] = {}
    for layer in [*map(read_config_file, paths), overrides]:
        config = lay_over(config, layer)
    return config


def lay_over(below: Mapping[str, Any], above: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return `below` with `above` over it.

    Mappings are merged key by key, all else is replaced. A mapping of another kind (`KINDS`)
    replaces the one below; of keys that exclude each other (`CHOICES`) the one above stays; null
    takes a key away. Where the source of the activations is another, the sections that belong to
    the source below are left out.

    Parameters
    ----------
    below, above : mapping
        Configs or sections of the same name.
    where : str
        Name of the section; empty for the whole config.
    """
    if any(key in above and key in below and above[key] != below[key] for key in KINDS):
        return dict(above)
    merged = dict(below)
    source = _find_source(above)
    if not where and source is not None and source != (_find_source(below) or DEFAULT_SOURCE):
        merged = {key: value for key, value in merged.items() if key not in SOURCED}
    for section, keys in CHOICES.items():
        if _matches(where, section) and any(key in above for key in keys):
            merged = {key: value for key, value in merged.items() if key not in keys}
    for key, value in above.items():
        if value is None and key in merged:
            del merged[key]
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = lay_over(merged[key], value, f"{where}.{key}" if where else str(key))
        else:
            merged[key] = value
    return merged


def _find_source(config: Mapping[str, Any]) -> Any:
    activations = config.get("activations")
    return activations.get("source") if isinstance(activations, Mapping) else None


def _matches(where: str, section: str) -> bool:
    parent, _, last = section.rpartition(".")
    return where == section or (last == "*" and where.rpartition(".")[0] == parent and parent != "")
