"""Hugging Face transformers: found, checked by hash, loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from dbksvd.base.provenance import choose_device
from dbksvd.base.settings import parse
from dbksvd.models.attributes import find_text_sizes
from dbksvd.models.places import CONFIG_FILE, find_folder, find_gguf, find_package_model
from dbksvd.models.randomise import randomise_
from dbksvd.models.settings import ModelSettings
from dbksvd.models.sizes import ModelKind, ModelSizes, check_sizes, read_config, tell_kind
from dbksvd.models.tokenizer import check_vocabulary, count_embeddings, load_tokenizer
from dbksvd.models.weights import check_weights

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer.

    ``kind`` is ``"causal"`` if the checkpoint is a language model with a head, else ``"encoder"``;
    ``max_length`` is the longest input in tokens (None if there is no limit);
    ``sha256`` is the hash of model.safetensors, None for weights split over several files;
    ``tokenizer_file`` is its tokenizer.json, None without one; ``embeddings`` is the number of
    token ids that the model has an embedding for, None if it has no table of them.
    """

    model: Any
    tokenizer: Any
    name: str
    kind: ModelKind
    n_layers: int
    width: int
    max_length: int | None
    device: torch.device
    revision: str | None
    sha256: str | None
    tokenizer_file: Path | None = None
    embeddings: int | None = None


def load_model(
    settings: Mapping[str, Any] | ModelSettings, *, gpus: int | None = None
) -> LoadedModel:
    """Load a model from safetensors weights, with remote code off.

    Parameters
    ----------
    settings : ModelSettings, or a mapping of the same keys
        Section ``model`` of the config.
    gpus : int, optional
        GPUs that the scheduler gave to this job; None where there is no scheduler.

    Raises
    ------
    ValueError
        If a setting is not usable, or the model has another width or depth than in ``expect`` or
        the weights another hash than ``sha256`` (checked before they are loaded); or a file is
        damaged, or the tokenizer is missing or that of another model.
    OSError
        If the model cannot be found.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    checked = parse(ModelSettings, settings, "model")
    source, pinned = locate_model(checked)
    config = load_config(source, pinned)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"model: expected an encoder or a causal model, got {config.model_type}")
    text_config = config.get_text_config()
    width, layers = find_text_sizes(text_config)
    if width is None or layers is None:
        raise ValueError(
            f"model: expected a config with a width and a number of layers, got {width} and "
            f"{layers} in that of {source} ({config.model_type})"
        )
    sizes = ModelSizes(width, layers)
    check_sizes(checked.expect, sizes, source)
    sha256 = check_weights(source, checked)
    kind = tell_kind(getattr(config, "architectures", None))
    device = choose_device(checked.device, gpus=gpus)
    # Gemma-2 caps its attention scores, which of all implementations the plain one surely does.
    is_capped = getattr(text_config, "attn_logit_softcapping", None) is not None
    model = load_weights(
        AutoModelForCausalLM if kind == "causal" else AutoModel,
        source,
        pinned
        | ({"attn_implementation": "eager"} if is_capped else {})
        | {"dtype": DTYPES[checked.dtype], "use_safetensors": True},
    )
    if model.main_input_name != "input_ids":
        raise ValueError(
            f"model: expected a model of text, got {checked.shown_name} ({type(model).__name__}), "
            f"which takes {model.main_input_name}"
        )
    parameters = sum(weight.numel() for weight in model.parameters())
    check_sizes(checked.expect, replace(sizes, parameters=parameters), source)
    if checked.randomise is not None:
        randomise_(model, checked.randomise)
    tokenizer, tokenizer_file = load_tokenizer(source, pinned)
    embeddings = count_embeddings(model)
    check_vocabulary(tokenizer, embeddings, checked.shown_name)
    if checked.prepend_bos:
        prepend_bos_(tokenizer)
    return LoadedModel(
        model=model.to(device).eval().requires_grad_(False),
        tokenizer=tokenizer,
        name=checked.shown_name,
        kind=kind,
        n_layers=sizes.layers,
        width=sizes.width,
        max_length=find_max_length(model, text_config),
        device=device,
        revision=getattr(config, "_commit_hash", None) or checked.revision,
        sha256=sha256,
        tokenizer_file=tokenizer_file,
        embeddings=embeddings,
    )


def load_config(source: str, pinned: Mapping[str, Any]) -> Any:
    """Return transformers' config of a model.

    Raises
    ------
    ValueError
        If ``config.json`` cannot be read, or is of a type that transformers does not know.
    OSError
        If there is none.
    """
    from transformers import AutoConfig

    if Path(source).is_dir():
        read_config(Path(source) / CONFIG_FILE)  # transformers says less of what is wrong
    try:
        return AutoConfig.from_pretrained(source, **pinned)
    except OSError:
        raise
    except Exception as error:  # a config can make transformers raise anything
        raise ValueError(
            f"{source}: expected a {CONFIG_FILE} that transformers knows, got {tell_error(error)}"
        ) from error


def load_weights(auto: Any, source: str, arguments: Mapping[str, Any]) -> Any:
    """Return the model, after checking that its blocks have all their weights.

    Transformers fills what the files lack with random numbers. A head or a pooler may be missing.

    Raises
    ------
    ValueError
        If weights of a block or of the embeddings are missing, or the files do not fit the config.
    OSError
        If there are none.
    """
    try:
        model, info = auto.from_pretrained(source, **arguments, output_loading_info=True)
    except (torch.OutOfMemoryError, OSError):
        raise
    except Exception as error:  # odd weights and configs can raise anything
        raise ValueError(
            f"{source}: expected weights that fit {CONFIG_FILE}, got {tell_error(error)}"
        ) from error
    require_blocks(info, source)
    return model


def require_blocks(info: Mapping[str, Any], source: str) -> None:
    """Check that no weights of a block or of the embeddings were missing, as transformers tells.

    Raises
    ------
    ValueError
        If some were.
    """
    missing = sorted(map(str, info["missing_keys"]))
    lacking = [
        name for name in missing if re.search(r"\.\d+\.|embed(ding)?s?\.|embed_|w[tp]e\.", name)
    ]
    if lacking:
        raise ValueError(
            f"{source}: expected the weights of all blocks, found none for {lacking[0]} and "
            f"{len(lacking) - 1} more"
        )


def tell_error(error: Exception) -> str:
    """Return what a library raised, in one line that is not too long."""
    return f"{type(error).__name__}: {shorten(str(error), 300, placeholder=' …')}"


def find_max_length(model: Any, text_config: Any) -> int | None:
    """Return the most tokens that a model takes at once; None where nothing limits them.

    Models like RoBERTa have fewer than their table of positions has rows: they count from the row
    behind the one for padding.
    """
    names = ("max_position_embeddings", "max_seq_len")
    found = [getattr(text_config, name, None) for name in names]
    limits = [value for value in found if isinstance(value, int) and value > 0]  # XLNet says -1
    for name, module in model.named_modules():
        is_table = isinstance(module, torch.nn.Embedding)
        if is_table and name.rsplit(".", 1)[-1] == "position_embeddings":
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - first)
    return min(limits) if limits else None


def prepend_bos_(tokenizer: Any) -> None:
    """Let a tokenizer begin every text with its bos token, as a special token.

    Raises
    ------
    ValueError
        If it has none.
    """
    from tokenizers.processors import TemplateProcessing

    bos, number = tokenizer.bos_token, tokenizer.bos_token_id
    if bos is None:
        raise ValueError("model.prepend_bos: expected a tokenizer with a bos token, got none")
    if tokenizer("a")["input_ids"][:1] != [number]:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=[bos, "$A"], pair=[bos, "$A", "$B"], special_tokens=[(bos, number)]
        )


def locate_model(settings: ModelSettings) -> tuple[str, dict[str, Any]]:
    """Return a folder or hub name, and the arguments that pin it."""
    pinned: dict[str, Any] = {"trust_remote_code": False}
    gguf = find_gguf(settings)
    if gguf is not None:
        raise ValueError(
            f"model.name: expected the folder that {gguf} was converted to "
            "(scripts/convert_model.py), got the file itself"
        )
    if settings.package is not None:
        return str(find_package_model(settings.package)), pinned
    name = str(settings.name)
    folder = find_folder(name)
    if folder is not None:
        return str(folder), pinned
    if settings.revision is None:
        raise ValueError(f"model.revision: expected a commit or tag for the hub model {name!r}")
    return name, {**pinned, "revision": settings.revision}
