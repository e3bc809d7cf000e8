"""Documents as token ids: which tokens are kept, and how many documents that takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from dbksvd.text.documents import Document

TOKENIZED_AT_ONCE = 64


@dataclass(frozen=True)
class TokenizedDocument:
    """Token ids of one document, special ones included, and the positions that are kept."""

    index: int
    ids: np.ndarray
    kept: np.ndarray


def tokenize_documents(
    documents: Iterable[Document],
    tokenizer: Any,
    *,
    context_length: int,
    tokens_per_document: int | None,
) -> Iterator[TokenizedDocument]:
    """Yield every document as tokens, in order, those too of which no token is kept.

    Parameters
    ----------
    documents : iterable of Document
        In the order of use.
    tokenizer
        Tokenizer of transformers.
    context_length : int
        A document is cut to its first tokens, special ones counted.
    tokens_per_document : int or None
        Most tokens kept of a document, drawn with the document's index as seed.
    """
    documents = iter(documents)
    while batch := list(islice(documents, TOKENIZED_AT_ONCE)):
        encoded = tokenizer(
            [document.text for document in batch],
            truncation=True,
            max_length=context_length,
            return_special_tokens_mask=True,
        )
        for position, document in enumerate(batch):
            special = np.asarray(encoded["special_tokens_mask"][position], dtype=bool)
            kept = np.flatnonzero(~special)
            if tokens_per_document is not None and len(kept) > tokens_per_document:
                draw = np.random.default_rng(document.index)
                kept = np.sort(draw.choice(kept, size=tokens_per_document, replace=False))
            ids = np.asarray(encoded["input_ids"][position], dtype=np.int32)
            yield TokenizedDocument(document.index, ids, kept)


def select_tokens(
    documents: Iterable[Document],
    tokenizer: Any,
    *,
    quota: int,
    context_length: int,
    tokens_per_document: int | None,
    what: str = "tokens",
) -> list[TokenizedDocument]:
    """Tokenize documents in order until exactly `quota` tokens are kept.

    Parameters
    ----------
    documents, tokenizer, context_length, tokens_per_document
        As in :func:`tokenize_documents`.
    quota : int
        Tokens wanted; the last document gives no more than is missing.
    what : str
        What is counted, for messages.

    Raises
    ------
    ValueError
        If the documents end before.
    """
    selected: list[TokenizedDocument] = []
    total, n_documents = 0, 0
    for document in tokenize_documents(
        documents,
        tokenizer,
        context_length=context_length,
        tokens_per_document=tokens_per_document,
    ):
        n_documents += 1
        kept = document.kept[: quota - total]
        total += len(kept)
        if len(kept):
            selected.append(replace(document, kept=kept))
        if total == quota:
            return selected
    raise ValueError(f"text: expected {quota} {what}, got {total} from {n_documents} documents")
