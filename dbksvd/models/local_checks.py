"""A model looked at before anything runs: its config, its weights, its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbksvd.base.files import read_json
from dbksvd.base.local_files import (
    expand_user,
    is_path,
    read_tensor_headers,
    require_file,
    require_folder,
)
from dbksvd.models.conversion import check_gguf
from dbksvd.models.places import CONFIG_FILE, find_gguf
from dbksvd.models.settings import ModelSettings
from dbksvd.models.weights import WEIGHTS_FILE

WHERE = "model.name"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
PROCESSOR_FILE = "preprocessor_config.json"
# What tokenizers of transformers are stored in; some kinds need their config only.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def check_model_files(settings: ModelSettings, *, of_images: bool = False) -> None:
    """Check a model in a local folder or GGUF file; a folder of a package or the hub is accepted.

    Parameters
    ----------
    settings : ModelSettings
        Section ``model`` of the config.
    of_images : bool
        Whether images are read, not text.

    Raises
    ------
    ValueError
        If there is no such folder, or a file is missing, damaged or a pointer of git-lfs.
    """
    gguf = find_gguf(settings)
    if gguf is not None:
        check_gguf(gguf, "model.package" if settings.package else "model.gguf")
    if settings.name is None:
        return
    folder = expand_user(settings.name)
    if not folder.is_dir():
        if folder.exists() or is_path(settings.name):
            require_folder(settings.name, WHERE, "a model folder, or a name on the hub")
        return
    config = require_file(folder / CONFIG_FILE, WHERE, f"a model folder with {CONFIG_FILE}")
    _require_object(config)
    for path in _list_weights(folder):
        read_tensor_headers(require_file(path, WHERE, f"a model folder with {path.name}"))
    if of_images:
        require_file(folder / PROCESSOR_FILE, WHERE, f"a vision model with {PROCESSOR_FILE}")
        return
    found = [folder / name for name in TOKENIZER_FILES if (folder / name).exists()]
    if not found:
        raise ValueError(
            f"{WHERE}: expected a model folder with the files of its tokenizer, such as "
            f"{TOKENIZER_FILES[0]}, found none in {folder.absolute()}"
        )
    for path in found:
        require_file(path, WHERE, "the file of a tokenizer")


def _list_weights(folder: Path) -> list[Path]:
    """Return the files of the weights: one, or those that an index names."""
    index = folder / INDEX_FILE
    if (folder / WEIGHTS_FILE).exists() or not index.exists():
        if not (folder / WEIGHTS_FILE).exists():
            others = sorted(path.name for path in folder.glob("*.bin"))
            hint = f" but {', '.join(others)}" if others else ""
            raise ValueError(
                f"{WHERE}: expected a model folder with {WEIGHTS_FILE}, found none{hint} in "
                f"{folder.absolute()}"
            )
        return [folder / WEIGHTS_FILE]
    names = _require_object(require_file(index, WHERE, "an index of weights")).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index}: expected the names of files in weight_map, got {names!r}")
    return [folder / str(name) for name in sorted(set(names.values()))]


def _require_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
