"""How much text there is, from its words or its bytes: known before a model reads it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from dbksvd.base.local_files import expand_user
from dbksvd.base.splits import SPLITS, Split, choose_split, digest_item
from dbksvd.text.settings import TextSettings
from dbksvd.text.sources.registry import find_text_source

# A file of these kinds has at least a byte for each token that a model reads of it.
PLAIN = (".txt", ".jsonl", ".csv")
SMALL = 32_000_000  # bytes that are read in a moment


def count_words(settings: TextSettings, *, most: int) -> dict[Split, int]:
    """Return how many words the documents of each split have, no more than `most` of a document.

    Tokenizers make at least a token of a word, so that a model reads no fewer tokens. Of long
    sources, the first ``max_documents`` documents are read.

    Parameters
    ----------
    settings : TextSettings
        Section ``text`` of a config. Documents are split as the workflow splits them.
    most : int
        Words of a document that count: what comes later is not read.

    Raises
    ------
    ValueError, OSError
        If a source cannot be read.
    """
    words, seen = dict.fromkeys(SPLITS, 0), set()
    for text in islice(_read_texts(settings), settings.max_documents):
        if text not in seen:
            seen.add(text)
            digest = digest_item(settings.seed, text.encode())
            split = choose_split(digest, settings.heldout_fraction)
            words[split] += min(len(text.split()), most)
    return words


def _read_texts(settings: TextSettings) -> Iterable[str]:
    for position, source in enumerate(settings.sources):
        where = f"text.sources[{position}]"
        for _, texts in find_text_source(source.kind).read(source, where):
            for text in texts:
                if isinstance(text, str) and (text := text.strip()):
                    yield text


def count_most_tokens(settings: TextSettings, context_length: int) -> int | None:
    """Return a number of tokens that no tokenizer exceeds, or None where little is known.

    A token has at least a byte. Of small .txt and .jsonl files the documents are read, of which no
    more than the context counts.

    Parameters
    ----------
    settings : TextSettings
        Section ``text`` of a config.
    context_length : int
        Tokens of a document that are read.

    Raises
    ------
    ValueError, OSError
        If a source cannot be read.
    """
    sources = settings.sources
    files = [find_text_source(source.kind).local_files(source) for source in sources]
    if not all(found and all(file.suffix in PLAIN for file in found) for found in files):
        return None
    size = sum(expand_user(file).stat().st_size for found in files for file in found)
    if size > SMALL or any(source.kind != "file" for source in sources):
        return size
    texts = set(_read_texts(settings))
    return sum(min(len(text.encode()), context_length) for text in texts)
