"""Documents as token ids: which tokens are kept, and how many documents that takes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from dbksvd.text.documents import Document
from dbksvd.text.prefixes import cut_text

TOKENIZED_AT_ONCE = 64
# Of a long text, this many characters a token of the context are tokenized first, then more.
FIRST_CHARACTERS = 16
MORE_CHARACTERS = 8

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenizedDocument:
    """Token ids of one document, special ones included, and the positions that are kept.

    ``spelled`` counts positions left out because the text itself makes a special token there.
    """

    index: int
    ids: np.ndarray
    kept: np.ndarray
    spelled: int = 0


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
    special = find_special_ids(tokenizer)
    documents = iter(documents)
    while batch := list(islice(documents, TOKENIZED_AT_ONCE)):
        encoded = _encode([document.text for document in batch], tokenizer, context_length)
        for document, (ids, is_around) in zip(batch, encoded, strict=True):
            # A special token in the text is text; a vocabulary that has it as a word makes it all
            # the same, and then it is left out.
            is_spelled = np.isin(ids, special) & ~is_around
            kept = np.flatnonzero(~is_around & ~is_spelled)
            if tokens_per_document is not None and len(kept) > tokens_per_document:
                draw = np.random.default_rng(document.index)
                kept = np.sort(draw.choice(kept, size=tokens_per_document, replace=False))
            yield TokenizedDocument(document.index, ids, kept, int(is_spelled.sum()))


def find_special_ids(tokenizer: Any) -> np.ndarray:
    """Return the ids of the tokens that no text is made of: all special ones but the unknown."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {number for number, token in added.items() if token.special}
    special |= {number for number in tokenizer.all_special_ids if number is not None}
    return np.array(sorted(special - {tokenizer.unk_token_id}), dtype=np.int64)


def _encode(
    texts: list[str], tokenizer: Any, context_length: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return ids, and where they are special tokens around the text, of each text.

    Of a long text no more is tokenized than gives the first tokens.
    """
    limit = max(1024, FIRST_CHARACTERS * context_length)
    done: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    waiting = list(range(len(texts)))
    while waiting:
        pieces = [cut_text(texts[each], limit, tokenizer) for each in waiting]
        encoded = _call(tokenizer, pieces, context_length)
        rows = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
        for each, piece, (ids, around) in zip(waiting, pieces, rows, strict=True):
            if len(piece) == len(texts[each]) or len(ids) == context_length:
                done[each] = np.asarray(ids, dtype=np.int32), np.asarray(around, dtype=bool)
        waiting = [each for each in waiting if each not in done]
        limit *= MORE_CHARACTERS
    return [done[each] for each in range(len(texts))]


def _call(tokenizer: Any, texts: list[str], context_length: int) -> Any:
    try:
        return tokenizer(
            texts,
            truncation=True,
            max_length=context_length,
            return_special_tokens_mask=True,
            split_special_tokens=True,
        )
    # tokenizers raises bare exceptions, such as for an unknown token that is not in the vocabulary
    except Exception as error:
        raise ValueError(
            f"tokenizer: expected token ids for a text like {texts[0][:40]!r}, got an error of "
            f"{type(tokenizer).__name__}: {error}"
        ) from error


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
    total, n_documents, spelled = 0, 0, 0
    for document in tokenize_documents(
        documents,
        tokenizer,
        context_length=context_length,
        tokens_per_document=tokens_per_document,
    ):
        n_documents += 1
        kept = document.kept[: quota - total]
        total += len(kept)
        spelled += document.spelled
        if len(kept):
            selected.append(replace(document, kept=kept))
        if total == quota:
            if spelled:
                logger.warning(
                    "text: %d positions are left out where the text itself spells a special token",
                    spelled,
                )
            return selected
    raise ValueError(f"text: expected {quota} {what}, got {total} from {n_documents} documents")
