"""Hugging Face transformers: found, checked by hash, loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dbksvd.base.files import hash_file
from dbksvd.base.old_settings import build_settings
from dbksvd.base.provenance import choose_device
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
class ModelSettings:
    """Which model, and how it is loaded. Exactly one of `package` and `name` is given.

    Parameters
    ----------
    package : str, optional
        Installed distribution that carries a model folder; its files are used, its code is not.
    name : str, optional
        Local folder, or name on the hub.
    revision : str, optional
        Commit or tag on the hub; required for a hub name.
    sha256 : str, optional
        Hash that model.safetensors must have.
    dtype : {"float32", "float16", "bfloat16"}
        Type of the weights.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    prepend_bos : bool
        Whether every text begins with the tokenizer's bos token, for models whose tokenizer adds
        none (GPT-2, Pythia). Activations of the token itself are not kept.
    expect : dict of str to int, optional
        ``width``, ``layers`` and ``parameters`` that the model must have.
    """

    package: str | None = None
    name: str | None = None
    revision: str | None = None
    sha256: str | None = None
    dtype: str = "float32"
    device: str = "auto"
    prepend_bos: bool = False
    expect: dict[str, int] | None = None

    def __post_init__(self) -> None:
        if (self.package is None) == (self.name is None):
            raise ValueError(
                f"model: expected either package or name, got package={self.package!r} "
                f"and name={self.name!r}"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"model.dtype: expected one of {', '.join(DTYPES)}, got {self.dtype}")


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


def load_model(settings: Mapping[str, Any], *, gpus: int = 1) -> LoadedModel:
    """Load a model from safetensors weights, with remote code off.

    Parameters
    ----------
    settings : mapping
        See :class:`ModelSettings`.
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

    checked = build_settings(ModelSettings, settings, "model")
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
        name=str(checked.package or checked.name),
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
    name = str(settings.name)
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
    if settings.sha256 is not None and actual != settings.sha256.lower():
        raise ValueError(f"{path}: expected sha256 {settings.sha256}, got {actual}")
    return actual
