"""How much of a long text must be tokenized, so that its first tokens are surely the same.

A text is cut between a letter or digit and a white space behind it, and only for tokenizers that
never make a token across such a place: then the tokens before the cut do not depend on what
follows.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

# Behind punctuation, some tokenizers take a line's end into the same word.
_EDGE = {
    True: re.compile(r"(?<=[^\W_])(?=[ \t\n])"),  # where words are split at white space first
    False: re.compile(r"(?<=[^\W_])(?= )"),
}
# How vocabularies write a space: SentencePiece, bytes, plainly.
_ACROSS = re.compile("[^▁Ġ ][▁Ġ ]")
_SEARCHED = 1000  # characters before the limit in which a place is looked for


def cut_text(text: str, limit: int, tokenizer: Any) -> str:
    """Return the beginning of a text, about `limit` characters; all of it where no cut is sound.

    Parameters
    ----------
    text : str
        Any text.
    limit : int
        Characters wanted.
    tokenizer
        Tokenizer of transformers.
    """
    if len(text) <= limit:
        return text
    splits = _tell_split(tokenizer)
    if splits is None:
        return text
    # one character more, so that the white space behind the last place is seen
    places = [
        found.start()
        for found in _EDGE[splits].finditer(text, max(1, limit - _SEARCHED), limit + 1)
    ]
    return text[: places[-1]] if places else text


@lru_cache(maxsize=8)
def _tell_split(tokenizer: Any) -> bool | None:
    """Return whether words are split at white space first; None where no cut is sound."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    backend = tokenizer.backend_tokenizer
    added = (str(token) for token in tokenizer.added_tokens_decoder.values())
    if any(re.search(r"\S\s", word) for word in added):
        return None
    if all(_is_split(backend, f"ab{space}cd") for space in " \t\n"):
        return True
    model = json.loads(backend.to_str())["model"]
    # These models split a text wherever no token goes across, whatever stands further on.
    is_local = model["type"] == "Unigram" or (
        model["type"] == "BPE"
        and not model.get("end_of_word_suffix")
        and not model.get("continuing_subword_prefix")
        and not model.get("ignore_merges")
        and not model.get("dropout")
    )
    is_crossed = any(_ACROSS.search(word) for word in backend.get_vocab(with_added_tokens=False))
    return False if is_local and not is_crossed else None


def _is_split(backend: Any, text: str) -> bool:
    if backend.pre_tokenizer is None:
        return False
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return len(pieces) > 1 and pieces[0].endswith("ab")
