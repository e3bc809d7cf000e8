"""Width and depth of a model as transformers' own config classes name them, read without torch.

Each config class has a map from the common names (``hidden_size``) to its own (DistilBERT's
``dim``). Importing transformers takes seconds and loads torch, so the map is read from the text of
the class; only where that does not tell is the class itself asked.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

WIDTH, DEPTH = "hidden_size", "num_hidden_layers"
# Transformers' tables of what it makes of GGUF files, and those of their keys that are not meant.
_GGUF_TABLES = {
    "ggml.py": "GGUF_CONFIG_MAPPING",
    "gguf/gguf_config_mapping.py": "GGUF_CONFIG_ARCHS",
}
_NO_CAUSAL_MODELS = {"general", "tokenizer", "t5", "umt5"}


def read_attributes(config: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """Return width and number of layers of the text model in a ``config.json``.

    Parameters
    ----------
    config : mapping
        Content of the file.
    path : Path
        The file, for messages, and for transformers where only its class can tell.

    Raises
    ------
    ValueError
        If neither the file nor the class tells both.
    """
    text = config.get("text_config", config)
    width, layers = _look_up(text) if isinstance(text, Mapping) else (None, None)
    if width is None or layers is None:
        width, layers = _ask_transformers(path)
    if not (_is_count(width) and _is_count(layers)):
        raise ValueError(
            f"{path}: expected a width and a number of layers, got {width!r} and {layers!r}"
        )
    return int(width), int(layers)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _look_up(config: Mapping[str, Any]) -> tuple[Any, Any]:
    names = find_attribute_map(str(config.get("model_type", "")))
    width, layers = (config.get(names.get(name, name), config.get(name)) for name in (WIDTH, DEPTH))
    return width, layers


@cache
def find_attribute_map(model_type: str) -> Mapping[str, str]:
    """Return the map of the config class of a type of model; empty where it has or is none."""
    for tree in _parse_configurations(model_type):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                values = dict(_list_constants(node))
                if values.get("model_type") == model_type:
                    found = values.get("attribute_map")
                    return found if isinstance(found, dict) else {}
    return {}


def _parse_configurations(model_type: str) -> Iterator[ast.Module]:
    """Yield the modules of transformers that may hold the config class of a type of model."""
    spec = importlib.util.find_spec("transformers")
    if not model_type or spec is None or not spec.submodule_search_locations:
        return
    folder = Path(spec.submodule_search_locations[0]) / "models"
    name = model_type.replace("-", "_")
    files = sorted((folder / name).glob("configuration_*.py")) if name.isidentifier() else []
    # a few are in a folder of another name
    for file in files or sorted(folder.glob("*/configuration_*.py")):
        content = file.read_text(encoding="utf-8")
        if f'model_type = "{model_type}"' in content:
            yield ast.parse(content)


def _list_constants(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for line in node.body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        value = getattr(line, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                try:
                    yield target.id, ast.literal_eval(value)
                except ValueError:  # not a constant
                    continue


def _ask_transformers(path: Path) -> tuple[Any, Any]:
    """Return what transformers' class makes of the file, with its defaults and properties."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path.parent, trust_remote_code=False)
        return find_text_sizes(config.get_text_config())
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: expected a width and a number of layers, got: {reason}"
        ) from error


def find_text_sizes(config: Any) -> tuple[Any, Any]:
    """Return width and number of layers of a config of transformers, None for one it has not."""
    return getattr(config, WIDTH, None), getattr(config, DEPTH, None)


@cache
def list_gguf_architectures() -> frozenset[str]:
    """Return the architectures whose GGUF files transformers converts to causal models.

    Its table is read from the text of the module. Empty where it is not found there.
    """
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    folder = Path(spec.submodule_search_locations[0]) / "integrations"
    names: set[str] = set()
    for file, table in _GGUF_TABLES.items():
        try:
            tree = ast.parse((folder / file).read_text(encoding="utf-8"))
        except OSError:
            return frozenset()
        names |= set(_list_keys(tree, table))
    return frozenset(names - _NO_CAUSAL_MODELS)


def _list_keys(tree: ast.Module, table: str) -> Iterator[str]:
    """Yield the constant keys of a dict that a module assigns."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            is_named = any(isinstance(each, ast.Name) and each.id == table for each in node.targets)
            keys = node.value.keys if is_named else []
            yield from (str(key.value) for key in keys if isinstance(key, ast.Constant))
