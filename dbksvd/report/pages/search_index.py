"""Words of tokens and contexts, to the atoms that fire on them or show them, in files by prefix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

WORD = re.compile(r"\w+")
BUCKET_POSTINGS = 25_000  # atoms listed in a bucket and in a file, which takes about 30 kB
# Of a word that more atoms show, and more than a quarter of all, only those that fire on it are
# listed.
MOST_SHOWN = 2000


class Words:
    """The words of all contexts, each token with the word that it is part of.

    Parameters
    ----------
    start : int array of shape (c + 1,)
        Tokens of context i are ``start[i]`` to ``start[i + 1]``.
    token : int array
        Ids of the tokens of all contexts.
    texts : mapping of int to str
        Text of each token.
    """

    def __init__(self, start: np.ndarray, token: np.ndarray, texts: Mapping[int, str]) -> None:
        known: dict[str, int] = {}
        self.of_token = np.full(len(token), -1, dtype=np.int32)
        for first, stop in zip(start[:-1].tolist(), start[1:].tolist(), strict=True):
            pieces = [texts[identity] for identity in token[first:stop].tolist()]
            ends = np.cumsum([len(piece) for piece in pieces])
            for found in WORD.finditer("".join(pieces)):
                word = known.setdefault(found.group().lower(), len(known))
                low = first + int(np.searchsorted(ends, found.start(), side="right"))
                high = first + int(np.searchsorted(ends, found.end() - 1, side="right"))
                self.of_token[low : high + 1] = word
        self.names = list(known)

    def find_in(self, first: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the words of windows of tokens, and which window each is of.

        Parameters
        ----------
        first, length : int arrays of shape (e,)
            First token (counted through all contexts) and tokens of each window.
        """
        owner = np.repeat(np.arange(len(first)), length)
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(length) - length, length)
        words = self.of_token[first[owner] + offset]
        return words[words >= 0], owner[words >= 0]


def index_words(
    names: Sequence[str],
    shown: tuple[np.ndarray, np.ndarray],
    fired: Sequence[tuple[int, str]],
    n_atoms: int,
) -> dict[str, list[list[int]]]:
    """Return for each word the atoms that fire on it and those that show it.

    Parameters
    ----------
    names : sequence of str
        The words.
    shown : pair of int arrays
        Numbers of words, and the atoms that show them.
    fired : sequence of (atom, text)
        Texts of the tokens that atoms fire on most.
    n_atoms : int
        Atoms of the dictionary.
    """
    index: dict[str, list[list[int]]] = {}
    pairs = np.unique(shown[0].astype(np.int64) * n_atoms + shown[1])
    words, atoms = pairs // n_atoms, pairs % n_atoms
    bounds = np.flatnonzero(np.r_[True, words[1:] != words[:-1], True]) if len(words) else [0]
    for low, high in pairwise(bounds):
        if high - low <= max(MOST_SHOWN, n_atoms // 4):
            index[names[int(words[low])]] = [[], atoms[low:high].tolist()]
    for atom, text in fired:
        for found in WORD.finditer(text.lower()):
            entry = index.setdefault(found.group(), [[], []])
            if atom not in entry[0][-1:]:
                entry[0].append(atom)
    return index


def cut_into_buckets(index: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (prefix, words) such that no prefix has much more than `BUCKET_POSTINGS` atoms.

    A word stands in the bucket of its longest prefix that is one.
    """
    pending = [("", dict(sorted(index.items())))]
    while pending:
        prefix, words = pending.pop()
        size = sum(len(fires) + len(shows) + 2 for fires, shows in words.values())
        longer = {word[: len(prefix) + 1] for word in words if len(word) > len(prefix)}
        if size <= BUCKET_POSTINGS or not longer:
            if words:
                yield prefix, words
            continue
        exact = {word: entry for word, entry in words.items() if word == prefix}
        if exact:
            yield prefix, exact
        for letter in sorted(longer, reverse=True):
            pending.append(
                (letter, {w: e for w, e in words.items() if w.startswith(letter) and w != prefix})
            )


def cut_into_files(index: Mapping[str, Any]) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield buckets by prefix, as many as a file holds: small ones share a file."""
    held: dict[str, dict[str, Any]] = {}
    room = BUCKET_POSTINGS
    for prefix, words in cut_into_buckets(index):
        size = sum(len(fires) + len(shows) + 2 for fires, shows in words.values())
        if held and size > room:
            yield held
            held, room = {}, BUCKET_POSTINGS
        held[prefix] = words
        room -= size
    if held:
        yield held


def describe_word(word: str, entry: Sequence[Sequence[int]]) -> list[Any]:
    """Return a word with steps from each atom that fires on it, and shows it, to the next."""
    return [word, *(list_steps(atoms) for atoms in entry)]


def list_steps(numbers: Sequence[int], first: int = 0) -> list[int]:
    """Return the steps from `first` over rising numbers: small where the numbers are many."""
    return [stop - start for start, stop in pairwise((first, *numbers))]
