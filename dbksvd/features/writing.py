"""Writes the folder of a site; docs/pages.md describes its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dbksvd.base.files import hash_files, write_json
from dbksvd.base.provenance import describe_run
from dbksvd.dictionaries.dictionary import SparseDictionary
from dbksvd.features.collector import Collector
from dbksvd.features.contexts import ContextSource
from dbksvd.features.geometry import draw_map, list_neighbours, list_neurons, match_truth
from dbksvd.features.image_contexts import ImageContexts
from dbksvd.features.logits import find_unembedding, measure_logits
from dbksvd.features.probes import Probes, score_probes
from dbksvd.features.settings import ExampleSettings
from dbksvd.features.site_files import (
    CONTEXTS_FILE,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    SITE_FOLDER,
    TILES_FILE,
    TOKENS_FILE,
    name_atoms_file,
    write_arrays,
)
from dbksvd.features.text_contexts import TextContexts
from dbksvd.features.token_texts import show_tokens
from dbksvd.models.families import READ_ONLY


@dataclass(frozen=True)
class SiteParts:
    """What a finished pass hands over; see :func:`dbksvd.features.collect.collect_examples`."""

    source: ContextSource
    dictionaries: Mapping[str, SparseDictionary]
    collectors: Mapping[str, Collector]
    weights: Mapping[str, str]
    settings: ExampleSettings
    counts: Mapping[str, int]
    norm_limit: float | None = None
    truth: Tensor | None = None
    probes: Path | None = None


def write_site(parts: SiteParts, output: str | Path) -> dict[str, Any]:
    """Write the folder of a site and return its manifest."""
    described = parts.source.describe()
    probes = None if parts.probes is None else Probes.open(parts.probes)
    unembedding = None
    if (
        isinstance(parts.source, TextContexts)
        and parts.source.loaded.kind == "causal"
        and described["model"].get("place") not in READ_ONLY
    ):
        unembedding = find_unembedding(parts.source.loaded.model)
    geometry = {
        name: (dictionary.atoms.float().cpu(), parts.collectors[name].signed)
        for name, dictionary in parts.dictionaries.items()
    }
    entries: list[dict[str, Any]] = []
    shown: set[tuple[int, int]] = set()  # (document, tile)
    tokens: set[int] = set()
    with SITE_FOLDER.replace(output) as folder:
        for name, collector in parts.collectors.items():
            arrays = collector.finish()
            places = np.stack([arrays["example_document"], arrays["example_tile"]], axis=1)
            shown.update((document, tile) for document, tile in np.unique(places, axis=0).tolist())
            if parts.source.kind != "images":
                del arrays["example_tile"]
            arrays |= _describe_atoms(name, geometry, parts, unembedding)
            if probes is not None:
                arrays |= score_probes(parts.dictionaries[name], probes)
            for key in ("token_id", "logit_token"):
                tokens.update(np.unique(arrays.get(key, [])).tolist())
            file = folder / name_atoms_file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_arrays(file, arrays)
            entries.append(
                {"name": name, "file": name_atoms_file(name), "width": geometry[name][0].shape[1]}
                | collector.describe()
                | {"weights_sha256": parts.weights[name]}
            )
        sources = _write_shown(parts.source, folder, shown, tokens - {-1})
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "kind": parts.source.kind,
            "model": described["model"],
            "data": described["data"] | dict(parts.counts),
            "settings": parts.settings.dump() | {"norm_limit": parts.norm_limit},
            "sources": sources,
            "coactive_tokens": min(parts.settings.coactive_tokens, parts.counts["tokens"]),
            "probes": [] if probes is None else probes.names,
            "dictionaries": entries,
            "run": describe_run(seed=parts.settings.seed, device="cpu"),
            "sha256": hash_files(folder),
        }
        write_json(folder / MANIFEST_FILE, manifest)
    return manifest


def _describe_atoms(
    name: str,
    geometry: Mapping[str, tuple[Tensor, bool]],
    parts: SiteParts,
    unembedding: tuple[Tensor, Tensor | None] | None,
) -> dict[str, np.ndarray]:
    """Return the arrays of a dictionary that need no text."""
    atoms, signed = geometry[name]
    listed, seed = parts.settings.nearest, parts.settings.seed
    arrays = list_neighbours(name, geometry, listed) | list_neurons(atoms)
    arrays["map"] = draw_map(atoms, signed=signed, seed=seed)
    if unembedding is not None and unembedding[0].shape[1] == atoms.shape[1]:
        arrays |= measure_logits(atoms, *unembedding)
    if parts.truth is not None:
        arrays |= match_truth(atoms, parts.truth, listed, signed=signed)
    return arrays


def _write_shown(
    source: ContextSource, folder: Path, shown: set[tuple[int, int]], tokens: set[int]
) -> list[str]:
    """Write the tokens or tiles that the examples show; return the names of text sources."""
    if isinstance(source, TextContexts):
        return _write_text(source, folder, {document for document, _ in shown}, tokens)
    if isinstance(source, ImageContexts):
        write_json(folder / TILES_FILE, source.describe_tiles(shown))
    return []


def _write_text(
    source: TextContexts, folder: Path, documents: set[int], tokens: set[int]
) -> list[str]:
    origins = source.list_sources()
    names = sorted({origins[document] for document in documents})
    number = {name: position for position, name in enumerate(names)}
    ids, indices = [], []
    if documents:
        last = max(documents)
        for document in source.tokenize():
            if document.index in documents:
                indices.append(document.index)
                ids.append(document.ids)
            if document.index >= last:
                break
    lengths = [len(one) for one in ids]
    token = np.concatenate([*ids, np.empty(0, np.int32)]).astype(np.int32)
    arrays = {
        "document": np.array(indices, np.int32),
        "start": np.r_[0, np.cumsum(lengths)].astype(np.int64),
        "token": token,
        "source": np.array([number[origins[index]] for index in indices], np.int32),
    }
    write_arrays(folder / CONTEXTS_FILE, arrays)
    shown = show_tokens(source.loaded.tokenizer, tokens | set(np.unique(token).tolist()))
    content = {str(key): text for key, text in shown.items()}
    (folder / TOKENS_FILE).write_text(json.dumps(content, ensure_ascii=True, indent=0) + "\n")
    return names
