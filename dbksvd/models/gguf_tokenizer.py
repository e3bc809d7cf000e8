"""The tokenizer that a GGUF file describes.

A GGUF file names how text is split before merges apply (``tokenizer.ggml.pre``) and leaves the
rule to whoever reads it. Transformers knows some of the names and splits as GPT-2 does at all
others: at digits, SmolLM's text would get other tokens than the model was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbksvd.models.gguf_header import GGUFHeader

# Llama.cpp's own rules for these names (src/llama-vocab.cpp): as GPT-2, each digit by itself.
SINGLE_DIGITS = frozenset(
    ("codeshell", "command-r", "exaone", "minerva-7b", "refact", "smollm", "starcoder")
)
AS_GPT2 = frozenset(
    ("exaone4", "gigachat", "gpt-2", "jais", "jina-de", "jina-es", "mpt", "olmo", "phi-2",
     "roberta-bpe", "trillion")
)  # fmt: skip
_BYTE_LEVEL = "gpt2"  # how the files call byte-level merges


def load_gguf_tokenizer(header: GGUFHeader) -> Any:
    """Return the tokenizer of a GGUF file, as one of transformers.

    Chat templates are left out.

    Raises
    ------
    ValueError
        If the file describes none, or one whose rule of splitting is not known.
    """
    from transformers import AutoTokenizer

    path, kind = header.path, header.metadata.get("tokenizer.ggml.model")
    split = header.metadata.get("tokenizer.ggml.pre")
    if kind == _BYTE_LEVEL:
        _require_known(split, path)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            path.parent, gguf_file=path.name, trust_remote_code=False
        )
    except Exception as error:  # its readers raise whatever comes
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: expected a tokenizer that transformers reads, got tokenizer.ggml.model "
            f"{kind!r}: {type(error).__name__}: {reason}"
        ) from error
    if kind == _BYTE_LEVEL and split in SINGLE_DIGITS:
        split_digits_(tokenizer.backend_tokenizer)
    tokenizer.chat_template = None
    return tokenizer


def split_digits_(backend: Any) -> None:
    """Let a tokenizer of the library tokenizers split off each digit before GPT-2's own split."""
    from tokenizers import pre_tokenizers

    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )


def _require_known(split: Any, path: Path) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    known = SINGLE_DIGITS | AS_GPT2 | set(GGUF_PRE_TOKENIZER_SPLITS)
    if split not in known:
        raise ValueError(
            f"{path}: expected a known rule of splitting text in tokenizer.ggml.pre, got {split!r} "
            f"(known: {', '.join(sorted(known))})"
        )
