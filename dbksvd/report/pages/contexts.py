"""The text that the examples of a site show, for all pages of the site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dbksvd.features.site import SiteFeatures
from dbksvd.report.pages.columns import fold
from dbksvd.report.pages.search_index import Words

# Tokens of text that one file holds, about 190 kB; a page loads it once for all its atoms.
SHARED_TOKENS = 65_000


@dataclass(frozen=True)
class Contexts:
    """The text that examples show.

    Parameters
    ----------
    place : mapping of int to int
        Index of a document among the contexts.
    start, token, source : int arrays
        As in ``contexts.h5``.
    texts : mapping of int to str
        Text of each token.
    words : Words
        The words of the contexts.
    are_shared : bool
        Whether all text is in one file of the site; else each atom has its own copy of what it
        shows.
    """

    place: Mapping[int, int]
    start: np.ndarray
    token: np.ndarray
    source: np.ndarray
    texts: Mapping[int, str]
    words: Words
    are_shared: bool

    def read(self, start: int, stop: int) -> list[str]:
        """Return the texts of tokens, counted through all contexts."""
        return [self.texts[identity] for identity in self.token[start:stop].tolist()]

    def describe(self) -> dict[str, Any]:
        """Return for each context its document, its source, and the texts of its tokens."""
        bounds = pairwise(self.start.tolist())
        return {
            "documents": fold(list(self.place)),
            "sources": fold(self.source.tolist()),
            "texts": fold([self.read(start, stop) for start, stop in bounds]),
        }


def read_contexts(features: SiteFeatures) -> Contexts:
    """Return the text of a site; empty where its activations are of none.

    Parameters
    ----------
    features : SiteFeatures
        What was collected at the site.
    """
    none = np.zeros(0, dtype=np.int64)
    empty = {"start": np.zeros(1, dtype=np.int64), "token": none, "source": none, "document": none}
    arrays = features.contexts or empty
    start, token = arrays["start"], arrays["token"]
    return Contexts(
        place={document: number for number, document in enumerate(arrays["document"].tolist())},
        start=start,
        token=token,
        source=arrays["source"],
        texts=features.tokens,
        words=Words(start, token, features.tokens),
        are_shared=bool(features.contexts) and len(token) <= SHARED_TOKENS,
    )
