"""The weights of a model: their files, checked before anything is loaded. Torch is not needed."""

from __future__ import annotations

from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from dbksvd.base.files import check_hash, hash_file, is_lfs_pointer, read_json
from dbksvd.models.settings import ModelSettings

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# Of the seal that lies beside a converted model.
SEAL_KEYS = frozenset(("files", "source"))


def find_file(source: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a model folder, or of a model of the hub; None if it has none."""
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file

    found = cached_file(
        source, name, revision=revision, _raise_exceptions_for_missing_entries=False
    )
    return Path(found) if found else None


def check_weights(source: str, settings: ModelSettings) -> str | None:
    """Return the hash of the weights, None for weights in several files.

    Raises
    ------
    ValueError
        If it is not the expected one, or a file is cut short or only stands for the weights.
    DamagedFileError
        If a file of a converted model is not the one that its seal describes.
    FileNotFoundError
        If ``sha256`` is set and there is no such file, or a file of the index is missing.
    """
    path = find_file(source, WEIGHTS_FILE, settings.revision)
    if path is None:
        _check_index(source)
        if settings.sha256 is not None:
            raise FileNotFoundError(
                f"{Path(source) / WEIGHTS_FILE}: model.sha256 is set, but the model has no such "
                "file (weights in several files cannot be checked: leave model.sha256 out and pin "
                "model.revision)"
            )
        return None
    _refuse_pointer(path)
    actual = hash_file(path)
    if settings.sha256 is not None and actual != settings.sha256:
        raise ValueError(f"{path}: expected sha256 {settings.sha256}, got {actual}")
    _check_seal(path, actual)
    count_weights(path)
    return actual


def _check_seal(weights: Path, sha256: str) -> None:
    """Check a folder that a GGUF file was converted to against the seal beside it."""
    seal = Path(f"{weights.parent}.json")
    if not seal.is_file():
        return
    content = read_json(seal)
    if not isinstance(content, dict) or not content.keys() >= SEAL_KEYS:
        return  # not ours
    for name, wanted in content["files"].items():
        if name != weights.name or wanted != sha256:
            check_hash(weights.parent / name, wanted, seal)


def _check_index(source: str) -> None:
    """Check that a local folder has all the files that its index of weights names."""
    index = Path(source) / INDEX_FILE
    if not index.is_file():
        return
    content = read_json(index)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index}: expected a weight_map with the files of the weights, got none")
    files = sorted(set(map(str, names.values())))
    missing = [name for name in files if not (Path(source) / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{index}: expected {len(files)} files of weights, found none named "
            f"{', '.join(missing)}"
        )
    for name in files:
        count_weights(Path(source) / name)


def count_weights(path: Path) -> int:
    """Return the number of weights in a safetensors file; only its header is read.

    Raises
    ------
    ValueError
        If it is none, is cut short, or is a pointer of git-lfs.
    """
    _refuse_pointer(path)
    try:
        with safe_open(path, framework="np") as file:
            return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        size = path.stat().st_size
        raise ValueError(
            f"{path}: expected whole safetensors weights, got {size} bytes: {error}"
        ) from error


def _refuse_pointer(path: Path) -> None:
    if is_lfs_pointer(path):
        raise ValueError(
            f"{path}: expected weights, got a pointer of git-lfs (git lfs pull fetches the file)"
        )
