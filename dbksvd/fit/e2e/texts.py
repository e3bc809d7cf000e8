"""Documents of the experiment as batches of token ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dbksvd.base.splits import Split
from dbksvd.models.loading import LoadedModel
from dbksvd.text.documents import iterate_documents
from dbksvd.text.tokens import TokenizedDocument, select_tokens


@dataclass(frozen=True)
class TokenBatch:
    """Documents, padded on the right.

    Parameters
    ----------
    ids : int64 tensor of shape (b, t)
        Their tokens, special ones included.
    is_text : bool tensor of shape (b, t)
        Where a token is text: not special, not padding.
    """

    ids: Tensor
    is_text: Tensor


def read_batches(
    loaded: LoadedModel,
    text: Path,
    split: Split,
    tokens: int,
    *,
    key: str,
    context_length: int,
    batch_tokens: int,
) -> list[TokenBatch]:
    """Return the first documents of a split in batches of about the same length.

    Parameters
    ----------
    loaded : LoadedModel
        The model with its tokenizer.
    text : Path
        Folder of :func:`dbksvd.text.documents.prepare_text`.
    split : {"train", "heldout"}
        Which documents.
    tokens : int
        Tokens of text in all of them together.
    key : str
        The setting that `tokens` comes from, for messages.
    context_length : int
        Tokens of a document that the model reads.
    batch_tokens : int
        Most tokens of a batch, padding included, where it has more than one document.

    Raises
    ------
    ValueError
        If there are not so many tokens.
    """
    documents = select_tokens(
        iterate_documents(text, split),
        loaded.tokenizer,
        quota=tokens,
        context_length=context_length,
        tokens_per_document=None,
        what=f"{split} tokens for {key}",
    )
    documents.sort(key=lambda document: len(document.ids))  # little padding
    groups: list[list[TokenizedDocument]] = [[]]
    for document in documents:
        if groups[-1] and (len(groups[-1]) + 1) * len(document.ids) > batch_tokens:
            groups.append([])
        groups[-1].append(document)
    return [_pad(group) for group in groups]


def _pad(documents: list[TokenizedDocument]) -> TokenBatch:
    ids = [torch.from_numpy(document.ids.astype(np.int64)) for document in documents]
    masks = [torch.zeros(len(each), dtype=torch.bool) for each in ids]
    for mask, document in zip(masks, documents, strict=True):
        mask[torch.from_numpy(document.kept)] = True
    return TokenBatch(pad_sequence(ids, batch_first=True), pad_sequence(masks, batch_first=True))
