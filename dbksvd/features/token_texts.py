"""Token ids as text to show: one string for each id, with a space where a word begins."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE_MARK = "\u2581"  # SentencePiece's


def _list_byte_letters() -> dict[str, int]:
    """Return the byte of each letter that byte-level tokenizers write (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTES = _list_byte_letters()


def show_tokens(tokenizer: Any, ids: Iterable[int]) -> dict[int, str]:
    """Return the text of token ids, such that texts in a row read as the document.

    Works for byte-level, SentencePiece, WordPiece and whole-word tokenizers of transformers. A
    token that is only a part of a character shows the replacement character.

    Parameters
    ----------
    tokenizer
        Tokenizer of transformers.
    ids : iterable of int
        Ids; one that the tokenizer has not (a padded embedding) shows as ``<id>``.
    """
    numbers = sorted({int(number) for number in ids})
    special = set(tokenizer.all_special_ids)
    known = len(tokenizer)
    kind = _tell_kind(tokenizer)
    shown = {}
    for number in numbers:
        token = tokenizer.convert_ids_to_tokens(number) if 0 <= number < known else None
        if token is None:
            shown[number] = f"<{number}>"
        else:
            shown[number] = str(token) if number in special else _show(str(token), kind)
    return shown


def _tell_kind(tokenizer: Any) -> str:
    """Return how a tokenizer marks where words begin."""
    decoder = str(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None))
    if "ByteLevel" in decoder:
        return "bytes"
    if "Metaspace" in decoder or _SPACE_MARK in decoder or "ByteFallback" in decoder:
        return "sentencepiece"
    vocabulary = tokenizer.get_vocab()
    if "\u0120" in vocabulary:
        return "bytes"
    if any(token.startswith(_SPACE_MARK) for token in vocabulary):
        return "sentencepiece"
    return "pieces" if any(token.startswith("##") for token in vocabulary) else "words"


def _show(token: str, kind: str) -> str:
    if kind == "bytes":
        # added tokens are not written in letters of bytes
        if all(letter in _BYTES for letter in token):
            return bytes(_BYTES[letter] for letter in token).decode(errors="replace")
        return token
    if kind == "sentencepiece":
        if found := _BYTE.fullmatch(token):
            return bytes([int(found[1], 16)]).decode(errors="replace")
        return token.replace(_SPACE_MARK, " ")
    if kind == "pieces" and token.startswith("##") and len(token) > 2:
        return token[2:]
    return f" {token}"
