"""Sparse codes: at most k (index, value) pairs per sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dbksvd.base.shapes import Activations, Atoms, CodeIndices, CodeValues, DenseCodes


@dataclass(frozen=True)
class SparseCodes:
    """Codes of n samples over m atoms, stored as (n, k) pairs.

    A slot is used where its value is not zero. Unused slots hold index 0 and value 0 and come
    after the used ones; an atom appears in at most one used slot of a sample.

    Parameters
    ----------
    indices : int64 tensor of shape (n, k)
        Atom of each slot.
    values : floating tensor of shape (n, k)
        Coefficient of each slot, in the unit of the activations (atoms have unit norm).
    n_atoms : int
        m, the number of atoms the indices refer to.
    """

    indices: CodeIndices
    values: CodeValues
    n_atoms: int

    def __len__(self) -> int:
        return self.indices.shape[0]

    @property
    def l0(self) -> Tensor:
        """Used slots of each sample, int64 of shape (n,)."""
        return (self.values != 0).sum(dim=1)

    def decode(self, atoms: Atoms) -> Activations:
        """Return ``Z @ D``, shape (n, d), without ever forming the dense Z."""
        return F.embedding_bag(
            self.indices, atoms, per_sample_weights=self.values.to(atoms.dtype), mode="sum"
        )

    def to_dense(self) -> DenseCodes:
        """Return Z of shape (n, m). Use it in blocks: it is m/k times the memory."""
        dense = self.values.new_zeros(len(self), self.n_atoms)
        return dense.scatter_add_(1, self.indices, self.values)

    @classmethod
    def from_dense(cls, dense: DenseCodes, k: int | None = None) -> SparseCodes:
        """Keep the k largest magnitudes of each row (default: as many as the fullest has)."""
        if k is None:
            k = max(1, int((dense != 0).sum(dim=1).max())) if len(dense) else 1
        indices = dense.abs().topk(k, dim=1).indices
        values = dense.gather(1, indices)
        return cls(indices.masked_fill(values == 0, 0), values, dense.shape[1])

    def split_signs(self) -> SparseCodes:
        """Return non-negative codes over the 2m atoms ``[D; -D]``; L0 is unchanged.

        SAEBench counts L0 by ``!= 0`` and density by ``> 0``; only non-negative codes mean the
        same under both.
        """
        negative = self.values < 0
        return SparseCodes(
            self.indices + self.n_atoms * negative, self.values.abs(), 2 * self.n_atoms
        )

    def count_usage(self) -> Tensor:
        """Return how many samples use each atom, int64 of shape (m,)."""
        return torch.bincount(self.indices[self.values != 0], minlength=self.n_atoms)

    def to(self, device: torch.device | str) -> SparseCodes:
        """Return the same codes on another device."""
        return SparseCodes(self.indices.to(device), self.values.to(device), self.n_atoms)

    def __getitem__(self, rows: slice) -> SparseCodes:
        return SparseCodes(self.indices[rows], self.values[rows], self.n_atoms)


def concatenate_codes(blocks: list[SparseCodes]) -> SparseCodes:
    """Stack codes of several blocks of samples, padding to the widest k."""
    width = max(block.indices.shape[1] for block in blocks)

    def pad(tensor: Tensor) -> Tensor:
        return F.pad(tensor, (0, width - tensor.shape[1]))

    return SparseCodes(
        torch.cat([pad(block.indices) for block in blocks]),
        torch.cat([pad(block.values) for block in blocks]),
        blocks[0].n_atoms,
    )
