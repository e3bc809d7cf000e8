"""Reads the folder of a site, and describes atoms as pages show them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dbksvd.base.files import check_folder, read_json
from dbksvd.features.site_files import (
    CONTEXTS_FILE,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    TILES_FILE,
    TOKENS_FILE,
    read_arrays,
)


@dataclass(frozen=True)
class AtomArrays:
    """The arrays of one dictionary (docs/pages.md) with its entry in the manifest."""

    entry: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def n_atoms(self) -> int:
        """Number m of atoms."""
        return int(self.entry["n_atoms"])

    def list_features(self, atom: int) -> list[int]:
        """Return the features of an atom: one, or its positive and its negative side."""
        return [atom] if not self.entry["signed"] else [atom, self.n_atoms + atom]

    def list_examples(self, feature: int) -> range:
        """Return the numbers of a feature's examples."""
        start, stop = self.arrays["example_start"][feature : feature + 2]
        return range(int(start), int(stop))


class SiteFeatures:
    """What was collected of a site; open it with :meth:`open`.

    Parameters
    ----------
    folder : Path
        Written by :func:`dbksvd.features.collect.collect_examples`.
    manifest : dict
        Its manifest.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest

    @classmethod
    def open(cls, folder: str | Path) -> SiteFeatures:
        """Open a folder after checking the hash of each file.

        Raises
        ------
        FileNotFoundError
            If there is no manifest.
        DamagedFileError
            If a file is missing or not what the manifest says.
        ValueError
            If the manifest is of another version.
        """
        path = Path(folder) / MANIFEST_FILE
        manifest = check_folder(path)
        if manifest.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"{path}: schema_version: expected {SCHEMA_VERSION}, "
                f"got {manifest.get('schema_version')!r}"
            )
        return cls(Path(folder), manifest)

    @property
    def names(self) -> list[str]:
        """Names of the dictionaries."""
        return [entry["name"] for entry in self.manifest["dictionaries"]]

    def read(self, name: str) -> AtomArrays:
        """Return the arrays of a dictionary.

        Raises
        ------
        ValueError
            If there is none of the name.
        """
        if name not in self.names:
            raise ValueError(f"dictionary: expected one of {', '.join(self.names)}, got {name!r}")
        entry = self.manifest["dictionaries"][self.names.index(name)]
        return AtomArrays(entry, read_arrays(self.folder / entry["file"]))

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Text of each token id; empty where there is no text."""
        path = self.folder / TOKENS_FILE
        if not path.is_file():
            return {}
        return {int(number): text for number, text in read_json(path).items()}

    @cached_property
    def tiles(self) -> dict[str, Any]:
        """Content of ``tiles.json``; empty where there are no images."""
        path = self.folder / TILES_FILE
        return dict(read_json(path)) if path.is_file() else {}

    @cached_property
    def contexts(self) -> dict[str, np.ndarray]:
        """The arrays of the documents that examples show; empty where there is no text."""
        path = self.folder / CONTEXTS_FILE
        return read_arrays(path) if path.is_file() else {}

    def find_context(self, document: int) -> tuple[np.ndarray, str] | None:
        """Return the token ids of a document and the name of its source; None without text."""
        if not self.contexts:
            return None
        place = int(np.searchsorted(self.contexts["document"], document))
        start, stop = self.contexts["start"][place : place + 2]
        source = self.manifest["sources"][self.contexts["source"][place]]
        return self.contexts["token"][start:stop], source

    def describe_example(self, arrays: AtomArrays, number: int) -> dict[str, Any]:
        """Return one example, JSON-able.

        Returns
        -------
        dict
            ``group``, ``document``, ``position``, ``peak``, ``first``, ``values`` (of each shown
            position); for text also ``tokens`` (their texts) and ``source``; for images ``tile``.
        """
        a = arrays.arrays
        first, length = int(a["example_first"][number]), int(a["example_length"][number])
        values = np.zeros(length, np.float32)
        inside = slice(*a["value_start"][number : number + 2])
        values[a["value_position"][inside] - first] = a["value"][inside]
        example = {
            "group": int(a["example_group"][number]),
            "document": int(a["example_document"][number]),
            "position": int(a["example_position"][number]),
            "peak": float(a["example_peak"][number]),
            "first": first,
            "values": values.tolist(),
        }
        if "example_tile" in a:
            example["tile"] = int(a["example_tile"][number])
        context = self.find_context(example["document"])
        if context is not None:
            ids, example["source"] = context
            example["tokens"] = [self.tokens[int(i)] for i in ids[first : first + length]]
        return example

    def describe_feature(self, arrays: AtomArrays, feature: int) -> dict[str, Any]:
        """Return what one side of an atom does, JSON-able.

        Returns
        -------
        dict
            ``count``, ``density``, ``mean`` and ``maximum`` of its coefficients; ``histogram``
            (``top`` and ``counts``); ``tokens`` (``text``, ``id``, ``count``, ``mean``);
            ``coactive`` (``feature``, ``count``, ``jaccard``, ``conditional``); ``examples``.
        """
        a = arrays.arrays
        count = int(a["count"][feature])
        described: dict[str, Any] = {
            "count": count,
            "density": count / max(self.manifest["data"]["tokens"], 1),
            "contexts": int(a["context_count"][feature]),
            "mean": float(a["total"][feature]) / max(count, 1),
            "maximum": float(a["maximum"][feature]),
            "histogram": {
                "top": float(a["histogram_top"][feature]),
                "counts": a["histogram_count"][feature].tolist(),
            },
        }
        if "token_id" in a:
            rows = zip(a["token_id"][feature].tolist(), a["token_count"][feature].tolist(),
                       a["token_total"][feature].tolist(), strict=True)  # fmt: skip
            described["tokens"] = [
                {"id": token, "text": self.tokens[token], "count": times, "mean": total / times}
                for token, times, total in rows
                if token >= 0
            ]
        names = ("feature", "count", "jaccard", "conditional")
        columns = [a[f"coactive_{name}"][feature].tolist() for name in names]
        described["coactive"] = [
            dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True) if row[0] >= 0
        ]
        described["examples"] = [
            self.describe_example(arrays, number) for number in arrays.list_examples(feature)
        ]
        return described

    def describe_atom(self, arrays: AtomArrays, atom: int) -> dict[str, Any]:
        """Return all that is known of an atom, JSON-able.

        Returns
        -------
        dict
            ``atom``, ``sides`` (one :meth:`describe_feature`, or two: positive and negative),
            ``nearest`` (``dictionary``, ``atom``, ``cosine``), ``neurons`` (``index``, ``value``),
            ``map``; where they apply ``logits`` (``raised`` and ``lowered``: ``text``, ``value``;
            ``histogram``), ``truth`` and ``probes``.
        """
        a = arrays.arrays
        described: dict[str, Any] = {
            "atom": atom,
            "sides": [self.describe_feature(arrays, f) for f in arrays.list_features(atom)],
            "nearest": [
                {"dictionary": name, "atom": other, "cosine": cosine}
                for name, atoms, cosines in zip(
                    self.names,
                    a["nearest_atom"][atom].tolist(),
                    a["nearest_cosine"][atom].tolist(),
                    strict=True,
                )
                for other, cosine in zip(atoms, cosines, strict=True)
                if other >= 0
            ],
            "neurons": _pair(a, atom, index="neuron_index", value="neuron_value"),
            "map": a["map"][atom].tolist(),
        }
        if "logit_token" in a:
            listed = [
                {"id": row["id"], "text": self.tokens[row["id"]], "value": row["value"]}
                for row in _pair(a, atom, id="logit_token", value="logit_value")
            ]
            half = len(listed) // 2
            described["logits"] = {
                "raised": listed[:half],
                "lowered": listed[half:],
                "histogram": {
                    "edges": a["logit_histogram_edges"][atom].tolist(),
                    "counts": a["logit_histogram_count"][atom].tolist(),
                },
            }
        if "truth_feature" in a:
            nearest = _pair(a, atom, feature="truth_feature", cosine="truth_cosine")
            described["truth"] = {"nearest": nearest, "match": int(a["truth_match"][atom])}
        if "probe_label" in a:
            described["probes"] = [
                {**self.manifest["probes"][row["label"]], "auc": row["auc"]}
                for row in _pair(a, atom, label="probe_label", auc="probe_auc")
            ]
        return described


def _pair(arrays: dict[str, np.ndarray], atom: int, **columns: str) -> list[dict[str, Any]]:
    """Return the rows of several arrays (m, n) at an atom, without those that hold no index."""
    values = [arrays[name][atom].tolist() for name in columns.values()]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
    return [row for row in rows if next(iter(row.values())) >= 0]
