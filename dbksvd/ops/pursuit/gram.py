"""Coding by a dictionary that codes many times: the products of its atoms are kept.

Evals code a few rows at a time with one dictionary, for which making m² products anew would be
most of the work. One Gram matrix is kept a process, whatever the number of dictionaries.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.ops.pursuit.encode import choose_pursuit, make_gram, sparse_encode

# Larger ones are made anew: 16,384 atoms in float32.
KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class _Kept:
    implementation: str
    atoms: Tensor
    gram: Tensor | None


_lock = Lock()
_kept: _Kept | None = None


def encode_again(
    x: Tensor, atoms: Tensor, k: int, *, implementation: str = "auto", **settings: Any
) -> SparseCodes:
    """Return what :func:`dbksvd.sparse_encode` does, with the products of the last call.

    Atoms are compared entry by entry with those of the last call; products are made anew where
    one differs, or where they take more than `KEPT_BYTES`.

    Parameters
    ----------
    x : floating tensor of shape (n, d)
        Samples.
    atoms : floating tensor of shape (m, d)
        Unit atoms.
    k, implementation, **settings
        As in :func:`dbksvd.sparse_encode`.
    """
    gram = None
    if len(x) and len(atoms) ** 2 * x.element_size() <= KEPT_BYTES:
        implementation = choose_pursuit(implementation, x.device, settings.get("product_dtype"))
        if atoms.device == x.device:  # else it is refused below
            gram = _recall_gram(atoms.detach().to(x.dtype).contiguous(), implementation)
    return sparse_encode(x, atoms, k, **settings, implementation=implementation, gram=gram)


def _recall_gram(atoms: Tensor, implementation: str) -> Tensor | None:
    global _kept
    with _lock:
        kept = _kept
        if kept is None or kept.implementation != implementation or not _is_same(kept.atoms, atoms):
            _kept = kept = None  # freed before the next is made
            kept = _kept = _Kept(implementation, atoms.clone(), make_gram(atoms, implementation))
        return kept.gram


def _is_same(one: Tensor, other: Tensor) -> bool:
    alike = (one.device, one.dtype, one.shape) == (other.device, other.dtype, other.shape)
    return alike and torch.equal(one, other)
