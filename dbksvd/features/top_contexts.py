"""Where atoms fire most, from the stored activations alone: no model is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dbksvd.activations.shards import ActivationShards
from dbksvd.base.settings import parse
from dbksvd.dictionaries.dictionary import SparseDictionary, is_signed
from dbksvd.features.token_texts import show_tokens
from dbksvd.models.loading import locate_model, prepend_bos_
from dbksvd.models.places import find_folder
from dbksvd.models.settings import ModelSettings
from dbksvd.models.tokenizer import load_tokenizer
from dbksvd.text.documents import check_documents, iterate_documents
from dbksvd.text.tokens import tokenize_documents

BLOCK = 4096


@dataclass(frozen=True)
class TopContext:
    """A place where an atom fires; ``print`` shows it with its peak in brackets.

    Parameters
    ----------
    atom : int
        The atom.
    value : float
        Its coefficient there, with sign.
    document, position, token : int
        Where: see :class:`dbksvd.activations.shards.RowLabels`.
    first : int
        Position of the first shown token.
    tokens : list of str
        Texts of the shown tokens; empty where no text was given.
    values : list of float
        The atom's coefficient at each shown token; NaN where the shards do not hold it.
    """

    atom: int
    value: float
    document: int
    position: int
    token: int
    first: int
    tokens: list[str]
    values: list[float]

    def __str__(self) -> str:
        place = self.position - self.first
        shown = [
            f"[{text}]" if number == place else text for number, text in enumerate(self.tokens)
        ]
        text = "".join(shown) or f"document {self.document}, position {self.position}"
        return f"atom {self.atom} {self.value:8.3f} {text}"


@dataclass(frozen=True)
class _Hit:
    atom: int
    value: float
    document: int
    position: int
    token: int


def find_top_contexts(
    dictionary: SparseDictionary,
    shards: ActivationShards,
    atoms: Sequence[int],
    *,
    text: str | Path | None = None,
    tokenizer: Any = None,
    n: int = 20,
    tokens_before: int = 31,
    tokens_after: int = 16,
) -> list[TopContext]:
    """Return the contexts in which atoms have their largest coefficients, one a document.

    Parameters
    ----------
    dictionary : SparseDictionary
        Of any method; see :func:`dbksvd.load_dictionary`.
    shards : ActivationShards
        Rows to look through.
    atoms : sequence of int
        Which atoms.
    text : path, optional
        Folder of the documents that the shards were extracted from; None shows no text.
    tokenizer : optional
        Tokenizer of transformers; by default that of the model that the shards name.
    n : int
        Contexts of an atom; signed atoms have as many for either sign.
    tokens_before, tokens_after : int
        Tokens shown around the peak.

    Returns
    -------
    list of TopContext
        By atom in the order given, positive coefficients first, then by falling magnitude; ties
        by document.

    Raises
    ------
    ValueError
        If an atom is not there, the width is another, or the text is not that of the shards.
    """
    m, d = dictionary.atoms.shape
    wrong = [atom for atom in atoms if not 0 <= atom < m]
    if wrong:
        raise ValueError(f"atoms: expected numbers from 0 to {m - 1}, got {wrong}")
    if shards.width != d:
        raise ValueError(f"shards: expected width {d}, the dictionary's, got {shards.width}")
    sides = [
        (atom, sign) for atom in atoms for sign in ((1, -1) if is_signed(dictionary) else (1,))
    ]
    best = _find_best(dictionary, shards, sides, n)
    hits = [hit for side in sides for hit in best[side]]
    values = _read_values(dictionary, shards, hits)
    texts = {} if text is None else _read_tokens(shards, Path(text), tokenizer, hits)
    return [_make_context(hit, values, texts, tokens_before, tokens_after) for hit in hits]


def _iterate_codes(
    dictionary: SparseDictionary, shards: ActivationShards, documents: np.ndarray | None = None
) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Yield (labels, indices, values) of blocks of rows, only those of some documents if given."""
    for start in range(0, len(shards), BLOCK):
        stop = min(start + BLOCK, len(shards))
        labels = shards.read_labels(start, stop)
        chosen = np.arange(stop - start)
        if documents is not None:
            chosen = np.flatnonzero(np.isin(labels.document, documents))
        if len(chosen):
            x = shards.read(start, stop)[chosen]
            codes = dictionary.encode(x.to(dictionary.atoms)).to("cpu")
            kept = type(labels)(*(array[chosen] for array in labels))
            yield kept, codes.indices.numpy(), codes.values.float().numpy()


def _find_best(
    dictionary: SparseDictionary,
    shards: ActivationShards,
    sides: Sequence[tuple[int, int]],
    n: int,
) -> dict[tuple[int, int], list[_Hit]]:
    """Return the n largest coefficients of each (atom, sign), one a document where there are any.

    Rows that come from no text have no document (−1): each then counts for itself.
    """
    best: dict[tuple[int, int], list[_Hit]] = {side: [] for side in sides}
    for labels, indices, values in _iterate_codes(dictionary, shards):
        for (atom, sign), found in best.items():
            rows, slots = np.nonzero((indices == atom) & (sign * values > 0))
            peaks = values[rows, slots]
            hits = found + [
                _Hit(atom, float(peaks[i]), *(int(array[rows[i]]) for array in labels))
                for i in np.argsort(-np.abs(peaks), kind="stable")
            ]
            hits.sort(key=lambda hit: (-abs(hit.value), hit.document, hit.position))
            kept: dict[tuple[int, int], _Hit] = {}
            for hit in hits:
                own = hit.position if hit.document < 0 else -1
                kept.setdefault((hit.document, own), hit)
            best[atom, sign] = list(kept.values())[:n]
    return best


def _read_values(
    dictionary: SparseDictionary, shards: ActivationShards, hits: Sequence[_Hit]
) -> dict[tuple[int, int, int], float]:
    """Return the coefficient at each (atom, document, position) of the hits' documents."""
    atoms = np.array(sorted({hit.atom for hit in hits}), np.int64)
    documents = np.array(sorted({hit.document for hit in hits if hit.document >= 0}), np.int64)
    found: dict[tuple[int, int, int], float] = {}
    for labels, indices, values in _iterate_codes(dictionary, shards, documents):
        places = list(zip(labels.document.tolist(), labels.position.tolist(), strict=True))
        for atom in atoms.tolist():
            own = (values * (indices == atom)).sum(axis=1)
            found |= {
                (atom, *place): value for place, value in zip(places, own.tolist(), strict=True)
            }
    return found


def _read_tokens(
    shards: ActivationShards, text: Path, tokenizer: Any, hits: Sequence[_Hit]
) -> dict[int, list[str]]:
    """Return the texts of the tokens of each document that a hit is in."""
    model = shards.manifest["model"]
    sha256 = check_documents(text)["sha256"]
    if sha256 != model.get("text_sha256"):
        raise ValueError(
            f"text: expected the documents of the shards, sha256 {model.get('text_sha256')}, got "
            f"{sha256} in {text}"
        )
    tokenizer = tokenizer or _load_tokenizer(model)
    wanted = {hit.document for hit in hits}
    documents = (
        document
        for document in iterate_documents(text, shards.split)  # type: ignore[arg-type]
        if document.index in wanted
    )
    tokenized = tokenize_documents(
        documents, tokenizer, context_length=model["context_length"], tokens_per_document=None
    )
    ids = {document.index: document.ids.tolist() for document in tokenized}
    shown = show_tokens(tokenizer, {token for tokens in ids.values() for token in tokens})
    return {index: [shown[token] for token in tokens] for index, tokens in ids.items()}


def _load_tokenizer(model: dict[str, Any]) -> Any:
    """Load the tokenizer of the model that a manifest names: a folder, a package or the hub's."""
    name, revision = model["model"], model.get("revision")
    is_package = find_folder(name) is None and revision is None
    settings = {"package": name} if is_package else {"name": name, "revision": revision}
    tokenizer, _ = load_tokenizer(*locate_model(parse(ModelSettings, settings, "model")))
    if model.get("prepend_bos"):
        prepend_bos_(tokenizer)
    return tokenizer


def _make_context(
    hit: _Hit,
    values: dict[tuple[int, int, int], float],
    texts: dict[int, list[str]],
    before: int,
    after: int,
) -> TopContext:
    tokens = texts.get(hit.document, [])
    first, stop = hit.position, hit.position + 1
    if tokens:
        first, stop = max(hit.position - before, 0), min(hit.position + after + 1, len(tokens))
    shown = [
        values.get((hit.atom, hit.document, place), float("nan")) for place in range(first, stop)
    ]
    if not tokens:
        shown = [hit.value]
    place = (hit.document, hit.position, hit.token)
    return TopContext(hit.atom, hit.value, *place, first, tokens[first:stop], shown)
