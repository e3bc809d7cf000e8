"""A language model of a few kilobytes that has learned a few sentences by heart."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

import torch

# SAEBench's absorption reads a fixed position before " A" to " Z": each must be one token.
LETTERS = [f" {letter}" for letter in string.ascii_uppercase]
END, PADDING = "<|endoftext|>", "<|pad|>"


def train_tokenizer(texts: Sequence[str], vocabulary: int):
    """Return a byte-level BPE tokenizer in which each letter after a space is a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *["".join(LETTERS)] * len(texts)], trainer)
    assert all(len(tokenizer.encode(letter).ids) == 1 for letter in LETTERS)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PADDING
    )


def save_trained_model(
    folder: Path,
    texts: Sequence[str],
    *,
    vocabulary: int = 1024,
    length: int = 64,
    steps: int = 300,
) -> None:
    """Save a GPT-NeoX of 2 blocks, d = 64, that was trained on `texts` in rows of `length` tokens."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    tokenizer = train_tokenizer(texts, vocabulary)
    ids = [id for text in texts for id in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    rows = torch.tensor(ids[: len(ids) // length * length]).view(-1, length)
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = GPTNeoXForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (16,))]
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
