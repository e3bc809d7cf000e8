"""Text as a language model reads it: a tokenizer trained on it, rows of tokens, batches of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from dbksvd.language_model_settings import LETTERS

END_OF_TEXT, PADDING = "<|endoftext|>", "<|pad|>"


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Return a byte-level BPE tokenizer of `vocabulary` tokens, " A" to " Z" among them.

    Raises
    ------
    ValueError
        If the vocabulary is too small for the letters, or the text for the vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def with_letters() -> Iterator[str]:
        for text in texts:
            yield text
            # Pairs are merged by how often they occur: one of each per document is often enough.
            yield "".join(LETTERS)

    tokenizer.train_from_iterator(with_letters(), trainer)
    missing = [letter for letter in LETTERS if len(tokenizer.encode(letter).ids) != 1]
    if missing or tokenizer.get_vocab_size() < vocabulary:
        raise ValueError(
            f"model.train.vocabulary: expected {vocabulary} tokens with all of ' A' to ' Z', got "
            f"{tokenizer.get_vocab_size()} without {missing}"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
    )


def encode_documents(
    documents: Sequence[str], tokenizer: Any, context_length: int, *, what: str
) -> np.ndarray:
    """Return all documents end to end as int32 rows of `context_length` tokens.

    Raises
    ------
    ValueError
        If they do not fill one row.
    """
    batch_size = 1000
    pieces = []
    for start in tqdm(range(0, len(documents), batch_size), desc=f"tokenize {what}"):
        batch = tokenizer(documents[start : start + batch_size])["input_ids"]
        pieces += [np.array([*row, tokenizer.eos_token_id], dtype=np.int32) for row in batch]
    ids = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int32)
    rows = len(ids) // context_length
    if rows == 0:
        raise ValueError(
            f"text: expected at least {context_length} {what} tokens, got {len(ids)} "
            f"from {len(documents)} documents"
        )
    return ids[: rows * context_length].reshape(rows, context_length)


def choose_rows(n_rows: int, step: int, batch_size: int, seed: int) -> np.ndarray:
    """Return the rows of a step's batch: every epoch is a new permutation, drawn by the seed."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: np.random.default_rng((seed, int(epoch))).permutation(n_rows)
        for epoch in np.unique(positions // n_rows)
    }
    return np.array([orders[position // n_rows][position % n_rows] for position in positions])
