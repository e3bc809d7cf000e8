"""A GGUF file unpacked into a model folder, once for all later jobs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

from dbksvd.base.files import hash_file, write_json
from dbksvd.base.saving import Folder, check_replaceable
from dbksvd.base.settings import parse
from dbksvd.models.attributes import list_gguf_architectures
from dbksvd.models.gguf_header import GGUFHeader, GGUFTensor, read_header
from dbksvd.models.gguf_tokenizer import load_gguf_tokenizer
from dbksvd.models.places import find_gguf
from dbksvd.models.settings import ModelSettings
from dbksvd.models.weights import SEAL_KEYS

logger = logging.getLogger(__name__)

MODEL_FOLDER = Folder(
    (
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer*"),
        *("special_tokens_map.json", "added_tokens.json"),
    )
)
# One file, which later jobs map into memory that they share.
_ONE_FILE = "1000TB"


def check_gguf(path: Path, where: str) -> GGUFHeader:
    """Return the header of a GGUF file that is whole and can be converted.

    Parameters
    ----------
    path : Path
        The file.
    where : str
        Key of the config that names it, for messages.

    Raises
    ------
    ValueError
        If the package gguf is missing, the file is none or cut, or its architecture or a type of
        its weights is not supported.
    """
    if find_spec("gguf") is None:
        raise ValueError(
            f"{where}: expected the package gguf, which unpacks GGUF files, to be installed, "
            "found none"
        )
    header = read_header(path)
    known = list_gguf_architectures()
    if known and _fold(header.architecture) not in map(_fold, known):
        raise ValueError(
            f"{path}: expected a GGUF file of an architecture that transformers converts "
            f"({', '.join(sorted(known))}), got {header.architecture}"
        )
    ends = (
        tensor.offset + _count_bytes(tensor, f"{path}: {name}")
        for name, tensor in header.tensors.items()
    )
    end = header.data_start + max(ends, default=0)
    size = path.stat().st_size
    if size < end:
        raise ValueError(f"{path}: expected a whole GGUF file of {end} bytes, got {size}")
    return header


def _fold(architecture: str) -> str:
    """Return a name as it is compared: llama.cpp's qwen2moe is transformers' qwen2_moe."""
    return architecture.replace("-", "").replace("_", "")


def _count_bytes(tensor: GGUFTensor, where: str) -> int:
    from gguf.constants import GGML_QUANT_SIZES

    sizes = {kind.value: found for kind, found in GGML_QUANT_SIZES.items()}
    if tensor.type not in sizes:
        raise ValueError(f"{where}: expected weights of a type of ggml, got type {tensor.type}")
    block, block_bytes = sizes[tensor.type]
    return prod(tensor.shape) // block * block_bytes


def convert_model(settings: Mapping[str, Any] | ModelSettings, output: Path) -> dict[str, Any]:
    """Unpack the GGUF file of a section ``model``; write a Hugging Face folder and its seal.

    Parameters
    ----------
    settings : ModelSettings, or a mapping of the same keys
        Section ``model`` of the config; ``sha256`` is that of the GGUF file.
    output : path
        Folder for config.json, model.safetensors (in ``dtype``) and the tokenizer; replaced as a
        whole. The seal is written beside it.

    Returns
    -------
    dict
        The seal: hashes of the files, and what they were made from.

    Raises
    ------
    ValueError
        If there is no such file, it has another hash, or it cannot be converted.
    """
    from dbksvd.models.tokenizer import check_vocabulary, count_embeddings

    checked = parse(ModelSettings, settings, "model")
    path = find_gguf(checked)
    if path is None:
        raise ValueError(f"model: expected a GGUF file, got {checked.shown_name}")
    MODEL_FOLDER.check(output)
    check_replaceable(f"{output}.json", sorted(SEAL_KEYS))
    sha256 = hash_file(path)
    if checked.sha256 not in (None, sha256):
        raise ValueError(f"{path}: expected sha256 {checked.sha256}, got {sha256}")
    header = check_gguf(path, "model.package" if checked.package else "model.gguf")
    tokenizer = load_gguf_tokenizer(header)
    model = _unpack(header, checked.dtype)
    check_vocabulary(tokenizer, count_embeddings(model), str(path))
    with MODEL_FOLDER.replace(output) as folder:
        model.save_pretrained(folder, max_shard_size=_ONE_FILE)
        tokenizer.save_pretrained(folder)
        for file in folder.iterdir():
            file.chmod(0o644)
        seal = {
            "files": {file.name: hash_file(file) for file in sorted(folder.iterdir())},
            "source": _describe(header, sha256),
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "dtype": checked.dtype,
        }
    write_json(f"{output}.json", seal)
    return seal


def _unpack(header: GGUFHeader, dtype: str) -> Any:
    """Return the model with plain weights."""
    from transformers import AutoModelForCausalLM, GgufConfig

    from dbksvd.models.loading import require_blocks, tell_error

    path = header.path
    auto: Any = AutoModelForCausalLM
    try:
        model, info = auto.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            trust_remote_code=False,
        )
    except OSError:
        raise
    except Exception as error:  # odd files can raise anything
        raise ValueError(
            f"{path}: expected a GGUF file that transformers converts, got {tell_error(error)}"
        ) from error
    require_blocks(info, str(path))
    model.hf_quantizer = None  # or it would not be saved, though nothing is packed any more
    return model


def _describe(header: GGUFHeader, sha256: str) -> dict[str, Any]:
    from gguf.constants import GGMLQuantizationType

    types = Counter(GGMLQuantizationType(tensor.type).name for tensor in header.tensors.values())
    logger.info("%s: %s, tensors: %s", header.path.name, header.architecture, dict(types))
    return {
        "file": header.path.name,
        "sha256": sha256,
        "name": header.metadata.get("general.name"),
        "architecture": header.architecture,
        "tensors": dict(types),
    }
