"""A random Llama of two blocks written to a GGUF file, and its weights as the file rounds them."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

BLOCKS, WIDTH, HEADS, KEY_HEADS, HIDDEN = 2, 64, 4, 2, 96
HEAD = WIDTH // HEADS
SHAPES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (KEY_HEADS * HEAD, WIDTH),
    "attn_v": (KEY_HEADS * HEAD, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (HIDDEN, WIDTH),
    "ffn_up": (HIDDEN, WIDTH),
    "ffn_down": (WIDTH, HIDDEN),
}
TEXTS = ["the  12 dogs of 1999", "a house, a  tree  7", "12345 is\na   number  22"]


def train_tokenizer() -> Tokenizer:
    """Return a tokenizer of the kind that the file says it has: each digit stands alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return tokenizer


def draw_weights(rows: int) -> dict[str, np.ndarray]:
    """Return random weights of a Llama under llama.cpp's names, in transformers' order."""
    draw = np.random.default_rng(0)
    found = {
        f"blk.{block}.{name}.weight": draw.standard_normal(shape) / 8
        for block in range(BLOCKS)
        for name, shape in SHAPES.items()
    }
    for block in range(BLOCKS):
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{block}.{name}.weight"] = 1 + draw.standard_normal(WIDTH) / 8
    found["output_norm.weight"] = 1 + draw.standard_normal(WIDTH) / 8
    found["token_embd.weight"] = draw.standard_normal((rows, WIDTH))
    return {name: weight.astype(np.float32) for name, weight in found.items()}


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return the rows of a query or key as llama.cpp stores them: rotary pairs side by side."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, tokenizer: Tokenizer, *, architecture: str = "llama", pre: str = "smollm") -> dict[str, np.ndarray]:  # fmt: skip
    """Write a random Llama; return its weights as the file's rounding leaves them."""
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(words)
    writer.add_token_types([3] + [1] * (len(words) - 1))
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    kept = {}
    for name, weight in draw_weights(len(words)).items():
        kind = Kind.F32 if "norm" in name else Kind.Q8_0 if "token" in name else Kind.Q4_1
        heads = {"attn_q": HEADS, "attn_k": KEY_HEADS}.get(name.split(".")[-2])
        packed = gguf.quantize(weight, kind)
        kept[name] = gguf.dequantize(packed, kind)
        stored = packed if heads is None else gguf.quantize(permute(weight, heads), kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept
