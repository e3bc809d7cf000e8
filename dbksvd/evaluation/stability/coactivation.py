"""Whether atoms fire together: correlations of the codes of two dictionaries."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from dbksvd.base.codes import SparseCodes


class CodeColumns:
    """The codes of n samples under one dictionary, atom by atom.

    Parameters
    ----------
    codes : SparseCodes
        Of n samples over m atoms.
    """

    def __init__(self, codes: SparseCodes) -> None:
        used = (codes.values != 0).cpu()
        rows = torch.nonzero(used)[:, 0].numpy()
        columns = codes.indices.cpu()[used].numpy()
        values = codes.values.cpu()[used].double().numpy()
        shape = (len(codes), codes.n_atoms)
        self.matrix = csr_matrix((values, (rows, columns)), shape=shape)
        self.usage = np.bincount(columns, minlength=codes.n_atoms)
        self.mean = np.asarray(self.matrix.mean(axis=0)).ravel()
        square = np.asarray(self.matrix.power(2).mean(axis=0)).ravel()
        variance = square - self.mean**2
        # a constant column keeps a rounding error of its mean square
        varies = variance > 1e-12 * square
        self.scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)

    @property
    def is_used(self) -> np.ndarray:
        """Whether any of the samples uses each atom, bool of shape (m,)."""
        return self.usage > 0


class Correlations:
    """Pearson correlation of codes over samples, as a similarity of atoms.

    ``C[i, j] = (mean(z_i z'_j) − mean(z_i) mean(z'_j)) / (σ_i σ'_j)`` from sums over the non-zeros
    of both codes, in float64; 0 for an atom whose code never varies.

    Parameters
    ----------
    first, second : CodeColumns
        Codes of the same samples under two dictionaries.
    signed : bool
        Whether the sign of an atom means nothing, so that the absolute correlation counts.

    Raises
    ------
    ValueError
        If the numbers of samples differ.
    """

    def __init__(self, first: CodeColumns, second: CodeColumns, *, signed: bool) -> None:
        rows = first.matrix.shape[0], second.matrix.shape[0]
        if rows[0] != rows[1]:
            raise ValueError(f"codes: expected as many samples on both sides, got {rows}")
        self.first, self.second, self.signed = first, second, signed
        self.transposed = first.matrix.T.tocsr()

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of atoms (m, m')."""
        return self.transposed.shape[0], self.second.matrix.shape[1]

    def read(self, start: int, stop: int) -> Tensor:
        """Return correlations of the codes of first atoms start…stop with all second ones."""
        products = (self.transposed[start:stop] @ self.second.matrix).toarray()
        products /= self.second.matrix.shape[0]
        products -= self.first.mean[start:stop, None] * self.second.mean
        products *= self.first.scale[start:stop, None] * self.second.scale
        found = torch.from_numpy(products).float()
        return found.abs() if self.signed else found
