"""The tokenizer of a model: loaded, and checked against its files and against the model.

What :class:`transformers.AutoTokenizer` gives is not always what the files say: without files some
classes give an empty tokenizer, and others build one anew by rules of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dbksvd.base.files import read_json
from dbksvd.models.weights import find_file

TOKENIZER_FILE = "tokenizer.json"
# read by transformers in place of what the tokenizer's class names
_OTHER_FILES = ("tokenizer.model", "tekken.json", "tiktoken.model")
_JSON_FILES = (TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "vocab.json")
# Of the kept tokens of the first documents, at most this share may be the unknown token.
MOST_UNKNOWN = 0.5
# A vocabulary below this share of the embedding is reported: padded ones are a few per cent apart.
SMALL_VOCABULARY = 0.8
COMPARED_CHARACTERS = 2000
SHOWN_IDS = 8

logger = logging.getLogger(__name__)


def load_tokenizer(source: str, pinned: Mapping[str, Any]) -> tuple[Any, Path | None]:
    """Return the tokenizer of a model, and its ``tokenizer.json`` if it has one.

    A special token's name inside a text (``[SEP]``, ``<|endoftext|>``) is text: only what the
    tokenizer itself puts around a text is special. Texts are cut at their end.

    Parameters
    ----------
    source : str
        Model folder, or name on the hub.
    pinned : mapping
        Arguments of ``from_pretrained``: revision, remote code off.

    Raises
    ------
    ValueError
        If there are no files of a tokenizer, or they cannot be read.
    """
    from transformers import AutoTokenizer

    revision = pinned.get("revision")
    for name in _JSON_FILES:
        path = find_file(source, name, revision) if Path(source).is_dir() else None
        if path is not None:
            read_json(path)  # transformers would not name the file
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, **pinned)
    # the readers of tokenizers raise bare exceptions, those of transformers whatever comes
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{source}: expected a tokenizer ({TOKENIZER_FILE}), got {type(error).__name__}: "
            f"{reason}"
        ) from error
    _check_files(tokenizer, source, revision)
    tokenizer.split_special_tokens = True
    tokenizer.truncation_side = "right"
    return tokenizer, find_file(source, TOKENIZER_FILE, revision)


def _check_files(tokenizer: Any, source: str, revision: str | None) -> None:
    """Refuse a tokenizer that transformers made without any file."""
    names: dict[str, str] = dict(type(tokenizer).vocab_files_names)
    if not names:
        return  # of bytes or characters: there is nothing to read
    whole = {names.pop("tokenizer_file", TOKENIZER_FILE), TOKENIZER_FILE, *_OTHER_FILES}
    parts = [names[key] for key in ("vocab_file", "merges_file") if key in names]
    if any(find_file(source, name, revision) for name in sorted(whole)):
        return
    if parts and all(find_file(source, name, revision) for name in parts):
        return
    either = f" or {' and '.join(parts)}" if parts else ""
    raise ValueError(
        f"{source}: expected the files of its tokenizer ({type(tokenizer).__name__}): "
        f"{TOKENIZER_FILE}{either}, found none"
    )


def count_embeddings(model: Any) -> int | None:
    """Return for how many token ids a model has an embedding; None if it has no table of them."""
    try:
        weight = getattr(model.get_input_embeddings(), "weight", None)
    except (NotImplementedError, AttributeError):
        return None
    return None if weight is None or weight.ndim != 2 else int(weight.shape[0])


def check_vocabulary(tokenizer: Any, embeddings: int | None, name: str) -> None:
    """Check that a model has an embedding for the whole vocabulary, added tokens aside.

    Added tokens may stand beyond it: some are never made from text. One that is made is found
    when text is tokenized.

    Parameters
    ----------
    tokenizer
        Tokenizer of transformers.
    embeddings : int or None
        Rows of the model's table, from :func:`count_embeddings`.
    name : str
        The model, for messages.

    Raises
    ------
    ValueError
        If it has not: the tokenizer is that of another model.
    """
    if embeddings is None:
        return
    added = getattr(tokenizer, "added_tokens_decoder", {})
    beyond = {
        word: number
        for word, number in tokenizer.get_vocab().items()
        if number >= embeddings and number not in added
    }
    if beyond:
        word = min(beyond, key=lambda each: beyond[each])
        raise ValueError(
            f"{name}: expected a tokenizer with ids below {embeddings}, the rows of the model's "
            f"embedding, got {beyond[word]} for {word!r} and {len(beyond) - 1} more: is it that "
            "of another model?"
        )
    if len(tokenizer) < SMALL_VOCABULARY * embeddings:
        logger.warning(
            "%s: its tokenizer has %d tokens and the model's embedding %d: is it that of another "
            "model?", name, len(tokenizer), embeddings,
        )  # fmt: skip


def compare_ids(tokenizer: Any, file: Path | None, texts: Iterable[str], name: str) -> None:
    """Check that transformers' tokenizer gives the ids that ``tokenizer.json`` says.

    Compared without the special tokens around a text, which transformers may set otherwise.

    Parameters
    ----------
    tokenizer
        Tokenizer of transformers.
    file : Path or None
        The ``tokenizer.json``; without one nothing is compared.
    texts : iterable of str
        Texts of the run; of each, the beginning is compared.
    name : str
        The model, for messages.

    Raises
    ------
    ValueError
        At the first text with other ids; the message has both.
    """
    if file is None or not getattr(tokenizer, "is_fast", False):
        return
    plain = _read_plain(file)
    for text in texts:
        text = text[:COMPARED_CHARACTERS]
        try:
            wanted = plain.encode(text, add_special_tokens=False).ids
            got = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        # tokenizers raises bare exceptions, such as for an unknown token that is no token
        except Exception as error:
            raise ValueError(
                f"{file}: expected token ids for {text[:60]!r}, got: {error}"
            ) from error
        if got == wanted:
            continue
        pairs = zip(wanted, got, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(wanted), len(got)))
        shown = slice(first, first + SHOWN_IDS)
        raise ValueError(
            f"{name}: expected of transformers' {type(tokenizer).__name__} the ids that {file} "
            f"gives, {wanted[shown]} from token {first} on, got {got[shown]} for "
            f"{text[:60]!r}: tokenizer_class in tokenizer_config.json does not fit the file"
        )


def _read_plain(file: Path) -> Any:
    """Return the tokenizer that a ``tokenizer.json`` is, without anything of transformers."""
    from tokenizers import Tokenizer

    try:
        plain: Any = Tokenizer.from_file(str(file))
    except Exception as error:
        raise ValueError(f"{file}: expected a tokenizer, got: {error}") from error
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = True
    return plain


def check_unknown(tokenizer: Any, ids: np.ndarray, name: str) -> None:
    """Check that a tokenizer knows the text of a run.

    Parameters
    ----------
    tokenizer
        Tokenizer of transformers.
    ids : integer array of shape (n,)
        Kept tokens of some documents.
    name : str
        The model, for messages.

    Raises
    ------
    ValueError
        If more than the share `MOST_UNKNOWN` is the unknown token.
    """
    if tokenizer.unk_token_id is None or not len(ids):
        return
    unknown = int((ids == tokenizer.unk_token_id).sum())
    if unknown > MOST_UNKNOWN * len(ids):
        raise ValueError(
            f"{name}: expected a tokenizer that knows the text, got the unknown token "
            f"{tokenizer.unk_token} for {unknown} of the first {len(ids)} tokens (at most "
            f"{MOST_UNKNOWN:.0%} are accepted)"
        )
