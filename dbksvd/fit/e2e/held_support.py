"""Least squares on the atoms that a pursuit has picked, with gradients to atoms and samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dbksvd.base.codes import SparseCodes


def decode_support(x: Tensor, atoms: Tensor, codes: SparseCodes) -> Tensor:
    """Return the projections (n, d) of samples onto the atoms that their codes use.

    With S the rows of `atoms` that a sample x uses, this is Sᵀ (S Sᵀ)⁻¹ S x. The choice of S is
    held; gradients flow through S and through the coefficients. Of non-negative codes, those above
    zero are the least-squares fit on their own atoms, so that this is their reconstruction too.

    Parameters
    ----------
    x : floating tensor of shape (n, d)
        Centred samples.
    atoms : floating tensor of shape (m, d)
        Atoms of any norm above 0.
    codes : SparseCodes
        Which atoms each sample uses; the values do not matter.
    """
    used = codes.values != 0
    rows = F.embedding(codes.indices, atoms) * used[..., None]
    system = (rows @ rows.mT).double() + torch.diag_embed((~used).double())
    products = (rows @ x[..., None]).double()
    coefficients = torch.linalg.solve(system, products).to(rows.dtype)
    return (coefficients.mT @ rows).squeeze(1)
