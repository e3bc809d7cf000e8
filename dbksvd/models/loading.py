"""Hugging Face transformers: found, checked by hash, loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dbksvd.base.files import hash_file
from dbksvd.base.provenance import choose_device
from dbksvd.base.settings import parse
from dbksvd.models.settings import ModelSettings
from dbksvd.models.sizes import (
    WEIGHTS_FILE,
    ModelKind,
    ModelSizes,
    check_sizes,
    find_package_model,
    tell_kind,
)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer.

    ``kind`` is ``"causal"`` if the checkpoint is a language model with a head, else ``"encoder"``;
    ``max_length`` is the longest input in tokens (None if the config does not say);
    ``sha256`` is the hash of model.safetensors, None for weights split over several files.
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


def load_model(settings: Mapping[str, Any] | ModelSettings, *, gpus: int = 1) -> LoadedModel:
    """Load a model from safetensors weights, with remote code off.

    Parameters
    ----------
    settings : ModelSettings, or a mapping of the same keys
        Section ``model`` of the config.
    gpus : int
        GPUs that the scheduler gave to this job.

    Raises
    ------
    ValueError
        If a setting is not usable, or the model has another width or depth than in ``expect`` or
        the weights another hash than ``sha256`` (checked before they are loaded).
    OSError
        If the model cannot be found.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    checked = parse(ModelSettings, settings, "model")
    source, pinned = locate_model(checked)
    config = AutoConfig.from_pretrained(source, **pinned)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"model: expected an encoder or a causal model, got {config.model_type}")
    text_config = config.get_text_config()
    sizes = ModelSizes(text_config.hidden_size, text_config.num_hidden_layers)
    check_sizes(checked.expect, sizes, source)
    sha256 = check_weights(source, checked)
    kind = tell_kind(getattr(config, "architectures", None))
    device = choose_device(checked.device, gpus=gpus)
    # Gemma-2 caps its attention scores, which of all implementations the plain one surely does.
    is_capped = getattr(text_config, "attn_logit_softcapping", None) is not None
    model: Any = (AutoModelForCausalLM if kind == "causal" else AutoModel).from_pretrained(
        source,
        **pinned,
        **({"attn_implementation": "eager"} if is_capped else {}),
        dtype=DTYPES[checked.dtype],
        use_safetensors=True,
    )
    parameters = sum(weight.numel() for weight in model.parameters())
    check_sizes(checked.expect, replace(sizes, parameters=parameters), source)
    tokenizer = AutoTokenizer.from_pretrained(source, **pinned)
    if checked.prepend_bos:
        prepend_bos_(tokenizer)
    return LoadedModel(
        model=model.to(device).eval().requires_grad_(False),
        tokenizer=tokenizer,
        name=checked.shown_name,
        kind=kind,
        n_layers=sizes.layers,
        width=sizes.width,
        max_length=getattr(text_config, "max_position_embeddings", None),
        device=device,
        revision=getattr(config, "_commit_hash", None) or checked.revision,
        sha256=sha256,
    )


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
    if settings.package is not None:
        return str(find_package_model(settings.package)), pinned
    if settings.name is None:
        raise ValueError("model.train: expected the folder of the trained model as model.name")
    name = settings.name
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder), pinned
    if name.count("/") > 1 or name.startswith(("/", ".", "~")):
        raise FileNotFoundError(f"model.name: expected a model folder, found none at {name}")
    if settings.revision is None:
        raise ValueError(f"model.revision: expected a commit or tag for the hub model {name!r}")
    return name, {**pinned, "revision": settings.revision}


def check_weights(source: str, settings: ModelSettings) -> str | None:
    """Return the hash of the weights; raise if it is not the expected one."""
    path = Path(source) / WEIGHTS_FILE
    if not Path(source).is_dir():
        from transformers.utils.hub import cached_file

        found = cached_file(
            source,
            WEIGHTS_FILE,
            revision=settings.revision,
            _raise_exceptions_for_missing_entries=False,
        )
        path = Path(found) if found else path
    if not path.is_file():
        if settings.sha256 is not None:
            raise FileNotFoundError(
                f"{path}: model.sha256 is set, but the model has no such file (weights in several "
                "files cannot be checked: leave model.sha256 out and pin model.revision)"
            )
        return None
    actual = hash_file(path)
    if settings.sha256 is not None and actual != settings.sha256:
        raise ValueError(f"{path}: expected sha256 {settings.sha256}, got {actual}")
    return actual
