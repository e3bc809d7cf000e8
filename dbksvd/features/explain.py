"""Which atoms fire on each token of a text, for several dictionaries side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dbksvd.base.site import RESIDUAL
from dbksvd.dictionaries.dictionary import SparseDictionary
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.features.contexts import limit_norms
from dbksvd.features.text_contexts import extract_contexts
from dbksvd.features.token_texts import show_tokens
from dbksvd.models.hooks import find_hook
from dbksvd.models.loading import LoadedModel
from dbksvd.text.documents import Document
from dbksvd.text.tokens import tokenize_documents


def explain_text(
    texts: Sequence[str],
    dictionaries: Mapping[str, SparseDictionary | str | Path],
    loaded: LoadedModel,
    *,
    layer: int | None,
    hook_module: str | None = None,
    place: str = RESIDUAL,
    context_length: int = 128,
    dtype: str = "float32",
    norm_limit: float | None = None,
) -> list[dict[str, Any]]:
    """Return the active atoms of every token of some texts.

    Parameters
    ----------
    texts : sequence of str
        What is explained; each is cut to `context_length` tokens.
    dictionaries : mapping of str to SparseDictionary or path
        Dictionaries of the site, or their folders, by name.
    loaded : LoadedModel
        The model.
    layer, hook_module, place
        The site: see :func:`dbksvd.models.hooks.find_hook`.
    context_length : int
        Tokens of a text that the model sees, special ones counted; the model may take fewer.
    dtype : {"float32", "float16"}
        Type in which activations of the site are stored.
    norm_limit : float, optional
        Tokens of a larger norm, such as attention sinks, get no code.

    Returns
    -------
    list of dict
        One a text, JSON-able: ``text``; ``ids`` and ``tokens`` (texts of the tokens, special ones
        included); ``coded`` (bool a token: false for special tokens and those over the limit);
        ``atoms``: for each dictionary, for each token, its [atom, coefficient] pairs by falling
        magnitude, ties by atom.

    Raises
    ------
    ValueError
        If a text is empty, the site is not there or a dictionary is of another width.
    """
    empty = [number for number, text in enumerate(texts) if not text.strip()]
    if empty or not texts:
        raise ValueError(f"texts: expected texts that are not empty, got empty ones at {empty}")
    named = {
        name: load_dictionary(one) if isinstance(one, str | Path) else one
        for name, one in dictionaries.items()
    }
    documents = list(
        tokenize_documents(
            [Document(number, "heldout", text) for number, text in enumerate(texts)],
            loaded.tokenizer,
            context_length=min(context_length, loaded.max_length or context_length),
            tokens_per_document=None,
        )
    )
    hook = find_hook(loaded, layer, hook_module, place)
    # one text a forward pass, so that a text's codes do not depend on the others
    contexts = limit_norms(extract_contexts(loaded, hook, documents, 1, dtype), norm_limit)
    starts, position = contexts.rows.starts, contexts.rows.position
    pairs = {}
    for name, dictionary in named.items():
        width = dictionary.atoms.shape[1]
        if contexts.activations.shape[1] != width:
            raise ValueError(
                f"{name}: expected width {contexts.activations.shape[1]}, the activations' at "
                f"{hook.name}, got {width}"
            )
        codes = dictionary.encode(contexts.activations.to(dictionary.atoms))
        rows = zip(codes.indices.tolist(), codes.values.float().tolist(), strict=True)
        pairs[name] = [_list_active(*row) for row in rows]
    shown = show_tokens(loaded.tokenizer, {int(i) for document in documents for i in document.ids})
    explained = []
    for number, document in enumerate(documents):
        rows_of = {int(position[row]): row for row in range(starts[number], starts[number + 1])}
        places = range(len(document.ids))
        explained.append(
            {
                "text": texts[number],
                "ids": document.ids.tolist(),
                "tokens": [shown[int(token)] for token in document.ids],
                "coded": [place in rows_of for place in places],
                "atoms": {
                    name: [rows[rows_of[place]] if place in rows_of else [] for place in places]
                    for name, rows in pairs.items()
                },
            }
        )
    return explained


def _list_active(indices: list[int], values: list[float]) -> list[list[float]]:
    active = [(atom, value) for atom, value in zip(indices, values, strict=True) if value]
    return [list(pair) for pair in sorted(active, key=lambda pair: (-abs(pair[1]), pair[0]))]
