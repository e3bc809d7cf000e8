"""The codes that made the held-out samples, kept sparse for scoring."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_array, vstack
from torch import Tensor

from dbksvd.base.files import check_hash, hash_file, read_seal, replace_file, write_json

_OPTIONAL = ("component", "unseen")


@dataclass(frozen=True)
class Truth:
    """Codes of n samples over known features.

    Parameters
    ----------
    codes : csr_array of shape (n, n_features), float32
        Activations of the features, ≥ 0. Where the truth was read from a file, only as many
        columns as features that fire.
    component : int64 tensor of shape (n,), or None
        Part of the mixture that made each sample.
    unseen : bool tensor of shape (n,), or None
        Whether a sample holds a pair of features that is kept apart in training
        (:mod:`dbksvd.synthetic.pairs`).
    """

    codes: csr_array
    component: Tensor | None = None
    unseen: Tensor | None = None

    def __len__(self) -> int:
        return int(self.codes.shape[0])

    @classmethod
    def from_dense(
        cls, codes: Tensor, component: Tensor | None = None, unseen: Tensor | None = None
    ) -> Truth:
        """Return the truth of dense codes (n, n_features)."""
        return cls(csr_array(codes.numpy()), component, unseen)

    def take_first(self, rows: int) -> Truth:
        """Return the truth of the first rows."""
        component = None if self.component is None else self.component[:rows]
        unseen = None if self.unseen is None else self.unseen[:rows]
        return Truth(self.codes[:rows], component, unseen)

    def read_dense(self, start: int, stop: int, n_features: int) -> Tensor:
        """Return the codes of rows `start` to `stop` as float32 (stop − start, n_features)."""
        rows = self.codes[start:stop]
        rows.resize(rows.shape[0], n_features)
        return torch.from_numpy(rows.toarray())


def join_truths(truths: Sequence[Truth]) -> Truth:
    """Return the truth of all samples, one slice after the other."""
    width = max(truth.codes.shape[1] for truth in truths)
    slices = [truth.codes.copy() for truth in truths]
    for codes in slices:
        codes.resize(codes.shape[0], width)
    return Truth(
        vstack(slices, format="csr"),
        _join(truth.component for truth in truths),
        _join(truth.unseen for truth in truths),
    )


def _join(parts: Iterable[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


def save_truth(truth: Truth, path: str | Path) -> None:
    """Write a truth as safetensors, with a seal (JSON beside it) that holds its hash."""
    path = Path(path)
    codes = truth.codes
    tensors = {
        "starts": torch.from_numpy(codes.indptr.astype(np.int64)),
        "indices": torch.from_numpy(codes.indices.astype(np.int32)),
        "values": torch.from_numpy(codes.data),
    }
    for name in _OPTIONAL:
        if (values := getattr(truth, name)) is not None:
            tensors[name] = values
    with replace_file(path) as temporary:
        save_file(tensors, temporary)
    seal = {"file": path.name, "sha256": hash_file(path), "rows": len(truth)}
    write_json(path.with_suffix(".json"), seal)


def _read_truth(path: Path) -> Truth:
    """Return the truth in one file.

    Raises
    ------
    ValueError
        If it holds something else.
    """
    try:
        tensors = load_file(path)
        parts = [tensors[name].numpy() for name in ("values", "indices", "starts")]
        return Truth(csr_array(tuple(parts)), *map(tensors.get, _OPTIONAL))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected the truth of a draw, got {error}") from error


def load_truth(paths: Sequence[str | Path]) -> Truth:
    """Read the truth of all slices, given in their order.

    Raises
    ------
    FileNotFoundError
        If there is no seal.
    DamagedFileError
        If a file is missing or not what its seal says.
    """
    truths = []
    for path in map(Path, paths):
        seal = path.with_suffix(".json")
        check_hash(path, read_seal(seal).get("sha256"), seal)
        truths.append(_read_truth(path))
    return join_truths(truths)
