"""The decoder of a SAELens SAE, computed in a dtype of the caller's choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dbksvd.base.codes import SparseCodes

if TYPE_CHECKING:
    from sae_lens import SAE


class _Decoder(nn.Module):
    """The decoder of an SAE as a module, whose weights `functional_call` can replace."""

    def __init__(self, sae: SAE[Any]) -> None:
        super().__init__()
        self.sae = sae

    def forward(self, codes: SparseCodes | Tensor) -> Tensor:
        # of the class: an eval may have put another in its place in the object
        name = "decode_sparse" if isinstance(codes, SparseCodes) else "decode"
        decoded: Tensor = getattr(type(self.sae), name)(self.sae, codes)
        return decoded


@torch.no_grad()
def decode_in(dtype: torch.dtype | None, sae: SAE[Any], codes: SparseCodes | Tensor) -> Tensor:
    """Return the reconstruction (n, d) of codes or dense latents (n, m), computed in `dtype`.

    Parameters
    ----------
    dtype : torch.dtype or None
        What codes and weights are converted to first; None keeps theirs.
    sae : sae_lens.SAE
        Its own decoder is called, whatever it does.
    codes : SparseCodes, or tensor of shape (n, m)
        Codes of the samples.
    """
    decoder = _Decoder(sae)
    if dtype is None:
        return decoder(codes)  # type: ignore[no-any-return]
    if isinstance(codes, SparseCodes):
        codes = SparseCodes(codes.indices, codes.values.to(dtype), codes.n_atoms)
    else:
        codes = (codes.to_dense() if codes.is_sparse else codes).to(dtype)
    weights = {f"sae.{name}": getattr(sae, name).detach().to(dtype) for name in ("W_dec", "b_dec")}
    return functional_call(decoder, weights, (codes,))  # type: ignore[no-any-return]
