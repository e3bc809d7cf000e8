"""What the page of one dictionary loads: its list, its map, its atoms, its search index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dbksvd.report.pages.chunks import round_all, write_chunk
from dbksvd.report.pages.columns import fold
from dbksvd.report.pages.contexts import Contexts
from dbksvd.report.pages.search_index import (
    cut_into_files,
    describe_word,
    index_words,
    list_steps,
)

SIDES_PER_FILE = 32
SIDES_WITH_TEXT_PER_FILE = 16  # where each example holds its own text
ATOMS_WITH_TILES_PER_FILE = 1  # 45 tiles are up to 150 kB
TOKENS_IN_LIST = 3
MANY_ATOMS = 8192  # of which a list of three tokens each would be over 300 kB
MAP_STEPS = 1000
PROBES_SHOWN = 5


def write_dictionary_data(
    folder: Path, arrays: Mapping[str, np.ndarray], contexts: Contexts, tiles: Any
) -> dict[str, Any]:
    """Write the data files of one dictionary below ``folder/data``; return what the page must know.

    Parameters
    ----------
    folder : path
        Folder of the page.
    arrays : mapping of str to array
        The dictionary's file of :mod:`dbksvd.features`.
    contexts : Contexts
        The text; empty where there is none.
    tiles : callable
        ``tiles(document, tile)`` returns name and data URL of an image's tile.
    """
    n_features, n_atoms = len(arrays["count"]), len(arrays["nearest_atom"])
    atoms = [_Atom(arrays, number, n_features // n_atoms) for number in range(n_atoms)]
    write_chunk(folder, "data/list", _fold_all(_make_list(atoms, arrays, contexts)))
    if "map" in arrays:
        write_chunk(folder, "data/map", _fold_all(_make_map(arrays["map"])))
    per_file = _count_per_file(arrays, contexts, n_features // n_atoms)
    for number, first in enumerate(range(0, n_atoms, per_file)):
        shown = [_describe(atom, contexts, tiles) for atom in atoms[first : first + per_file]]
        write_chunk(folder, f"data/atoms-{number}", {"first": first, "atoms": fold(shown)})
    files = []
    for number, buckets in enumerate(cut_into_files(_index(arrays, contexts, atoms))):
        words = [describe_word(*item) for bucket in buckets.values() for item in bucket.items()]
        write_chunk(folder, f"data/search-{number}", fold(words))
        files.append(list(buckets))
    return {"atoms_per_file": per_file, "buckets": files, "has_map": "map" in arrays}


def _fold_all(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    return {name: fold(values) for name, values in columns.items()}


def _count_per_file(arrays: Mapping[str, np.ndarray], contexts: Contexts, sides: int) -> int:
    """Return the number of atoms in a file, such that a view stays under 300 kB."""
    if "example_tile" in arrays:
        return ATOMS_WITH_TILES_PER_FILE
    has_text = bool(contexts.place) and not contexts.are_shared
    return (SIDES_WITH_TEXT_PER_FILE if has_text else SIDES_PER_FILE) // sides


class _Atom:
    """One atom of the arrays: its features are its sides."""

    def __init__(self, arrays: Mapping[str, np.ndarray], number: int, sides: int) -> None:
        self.arrays, self.number = arrays, number
        m = len(arrays["nearest_atom"])
        self.features = [number + side * m for side in range(sides)]

    def sum(self, name: str) -> float:
        return float(sum(self.arrays[name][feature] for feature in self.features))

    def list_peaks(self, contexts: Contexts) -> list[str]:
        """Return the tokens at the peaks of its top contexts, the most frequent ones first."""
        if not contexts.place:
            return []
        arrays, found = self.arrays, Counter[str]()
        for feature in self.features:
            for example in range(*arrays["example_start"][feature : feature + 2].tolist()):
                if arrays["example_group"][example] == 0:
                    place = contexts.place[int(arrays["example_document"][example])]
                    peak = int(contexts.start[place]) + int(arrays["example_position"][example])
                    found[contexts.texts[int(contexts.token[peak])]] += 1
        return [text for text, _ in found.most_common()]

    def list_tokens(self, texts: Mapping[int, str], most: int) -> list[str]:
        """Return the tokens that it fires on most, over its sides."""
        ids, counts = self.arrays.get("token_id"), self.arrays.get("token_count")
        if ids is None or counts is None:
            return []
        found = [
            (-int(counts[feature, place]), int(identity))
            for feature in self.features
            for place, identity in enumerate(ids[feature])
            if identity >= 0
        ]
        ordered = dict.fromkeys(identity for _, identity in sorted(found))
        return [texts[identity] for identity in list(ordered)[:most]]


def _make_list(
    atoms: Sequence[_Atom], arrays: Mapping[str, np.ndarray], contexts: Contexts
) -> dict[str, Any]:
    own = int(arrays["own_dictionary"])
    near, cosine = arrays["nearest_atom"][:, own], arrays["nearest_cosine"][:, own]
    maximum = np.array([max(arrays["maximum"][atom.features]) for atom in atoms])
    shown = TOKENS_IN_LIST if len(atoms) <= MANY_ATOMS else 1
    found = {
        "count": [int(atom.sum("count")) for atom in atoms],
        "maximum": round_all(maximum, 3),
        "tokens": [atom.list_peaks(contexts)[:shown] for atom in atoms],
        "nearest": [
            [int(n[0]), round(float(c[0]), 2)] if len(n) else [-1, 0]
            for n, c in zip(near, cosine, strict=True)
        ],
    }
    if "stability" in arrays:
        found["stability"] = round_all(arrays["stability"], 2)
    if "probe_label" in arrays:
        labels, values = arrays["probe_label"][:, 0], arrays["probe_auc"][:, 0]
        found["probe"] = [
            [int(label), round(float(value), 3)]
            for label, value in zip(labels, np.nan_to_num(values), strict=True)
        ]
    return found


def _make_map(places: np.ndarray) -> dict[str, list[int]]:
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - low) / np.maximum(high - low, 1e-12) * MAP_STEPS
    x, y = np.rint(scaled).astype(int).T.tolist()
    return {"x": x, "y": y}


def _describe(atom: _Atom, contexts: Contexts, tiles: Any) -> dict[str, Any]:
    arrays, number = atom.arrays, atom.number
    found: dict[str, Any] = {
        "sides": [_describe_side(arrays, feature, contexts, tiles) for feature in atom.features],
        "nearest": [
            [place, _pair(ids, values, 2)]
            for place, (ids, values) in enumerate(
                zip(arrays["nearest_atom"][number], arrays["nearest_cosine"][number], strict=True)
            )
        ],
    }
    if "neuron_index" in arrays:
        found["neurons"] = _pair(arrays["neuron_index"][number], arrays["neuron_value"][number], 3)
    if "logit_token" in arrays:
        found["logits"] = _describe_logits(arrays, number, contexts.texts)
    if "truth_feature" in arrays:
        features = _pair(arrays["truth_feature"][number], arrays["truth_cosine"][number], 3)
        found["truth"] = {"match": int(arrays["truth_match"][number]), "features": features}
    if "probe_label" in arrays:
        pairs = _pair(arrays["probe_label"][number], arrays["probe_auc"][number], 3)
        found["probes"] = pairs[:PROBES_SHOWN]
    return found


def _pair(ids: np.ndarray, values: np.ndarray, digits: int) -> list[list[float]]:
    kept = ids >= 0
    return [
        list(pair) for pair in zip(ids[kept].tolist(), round_all(values[kept], digits), strict=True)
    ]


def _describe_logits(
    arrays: Mapping[str, np.ndarray], number: int, texts: Mapping[int, str]
) -> dict[str, Any]:
    pairs = [
        [texts[int(identity)], float(f"{value:.3g}")]
        for identity, value in zip(
            arrays["logit_token"][number], arrays["logit_value"][number], strict=True
        )
    ]
    return {
        "up": pairs[: len(pairs) // 2],
        "down": pairs[len(pairs) // 2 :],
        "histogram": arrays["logit_histogram_count"][number].tolist(),
        "edges": round_all(arrays["logit_histogram_edges"][number], 3),
    }


def _describe_side(
    arrays: Mapping[str, np.ndarray], feature: int, contexts: Contexts, tiles: Any
) -> dict[str, Any]:
    count = int(arrays["count"][feature])
    low, high = arrays["example_start"][feature : feature + 2].tolist()
    return {
        "count": count,
        "contexts": int(arrays["context_count"][feature]),
        "mean": float(f"{arrays['total'][feature] / max(count, 1):.4g}"),
        "maximum": float(f"{arrays['maximum'][feature]:.4g}"),
        "histogram": arrays["histogram_count"][feature].tolist(),
        "top": float(arrays["histogram_top"][feature]),
        "tokens": _list_tokens(arrays, feature, contexts.texts),
        "base": int(arrays["coactive_base"][feature]),
        "coactive": _list_coactive(arrays, feature),
        "examples": [
            _describe_example(arrays, example, contexts, tiles) for example in range(low, high)
        ],
    }


def _list_tokens(
    arrays: Mapping[str, np.ndarray], feature: int, texts: Mapping[int, str]
) -> list[list[Any]]:
    if "token_id" not in arrays:
        return []
    ids, counts = arrays["token_id"][feature], arrays["token_count"][feature]
    totals = arrays["token_total"][feature]
    return [
        [texts[int(ids[place])], int(counts[place]), float(f"{totals[place] / counts[place]:.3g}")]
        for place in np.flatnonzero(ids >= 0)
    ]


def _list_coactive(arrays: Mapping[str, np.ndarray], feature: int) -> list[list[float]]:
    others = arrays["coactive_feature"][feature]
    return [
        [
            int(others[place]),
            float(f"{arrays['coactive_jaccard'][feature, place]:.3g}"),
            int(arrays["coactive_count"][feature, place]),
        ]
        for place in np.flatnonzero(others >= 0)
    ]


def _describe_example(
    arrays: Mapping[str, np.ndarray], example: int, contexts: Contexts, tiles: Any
) -> dict[str, Any]:
    """Return an example in short: what the page can tell by itself is left out.

    ``g`` group, ``p`` position of the peak, ``w`` steps from the first position that is shown over
    those that hold the values ``v``; ``c`` context, or ``d`` document, ``s`` source, ``t`` texts.
    """
    document = int(arrays["example_document"][example])
    position = int(arrays["example_position"][example])
    found: dict[str, Any] = {"g": int(arrays["example_group"][example])}
    if "example_tile" in arrays:
        tile = int(arrays["example_tile"][example])
        name, image = tiles(document, tile, position)
        peak = float(f"{arrays['example_peak'][example]:.3g}")
        return found | {"m": peak, "d": document, "tile": tile, "n": name, "i": image}
    first, length = int(arrays["example_first"][example]), int(arrays["example_length"][example])
    low, high = arrays["value_start"][example : example + 2].tolist()
    found["p"] = position
    found["w"] = list_steps(arrays["value_position"][low:high].tolist(), first)
    found["v"] = round_all(arrays["value"][low:high], 3)
    if document not in contexts.place:  # rows without text
        return found | {"d": document, "s": 0, "t": []}
    place = contexts.place[document]
    if contexts.are_shared:
        return found | {"c": place}
    start = int(contexts.start[place]) + first
    text = contexts.read(start, start + length)
    return found | {"d": document, "s": int(contexts.source[place]), "t": text}


def _index(
    arrays: Mapping[str, np.ndarray], contexts: Contexts, atoms: Sequence[_Atom]
) -> dict[str, Any]:
    """Return the words of a dictionary's examples and tokens, with their atoms."""
    fired = sorted(_list_fired(atoms, contexts.texts))
    n_atoms = len(atoms)
    empty = np.zeros(0, dtype=np.int64)
    shown = (empty, empty)
    if contexts.place and len(arrays["example_document"]):
        per_feature = np.diff(arrays["example_start"])
        owners = np.repeat(np.arange(len(per_feature)), per_feature) % n_atoms
        documents = arrays["example_document"].tolist()
        places = np.array([contexts.place[document] for document in documents])
        first = contexts.start[places] + arrays["example_first"]
        words, windows = contexts.words.find_in(first, arrays["example_length"])
        shown = (words, owners[windows])
    return index_words(contexts.words.names, shown, fired, n_atoms)


def _list_fired(atoms: Sequence[_Atom], texts: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    for atom in atoms:
        for text in atom.list_tokens(texts, len(texts)):
            yield atom.number, text
