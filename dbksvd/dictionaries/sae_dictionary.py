"""A SAELens SAE seen as a dictionary: codes as (index, value) pairs, decoded by the SAE itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from dbksvd.base.codes import SparseCodes, concatenate_codes
from dbksvd.dictionaries.decoding import decode_in
from dbksvd.dictionaries.dictionary import check_codes
from dbksvd.ops.inputs import as_samples

if TYPE_CHECKING:
    from sae_lens import SAE

# Dense latents are (rows, m): 512 rows of 16k latents are 32 MiB in float32.
ROWS_PER_BLOCK = 512
# What SAELens keeps of the samples encoded last, and needs to decode them.
NORMS = {
    "constant_norm_rescale": ("x_norm_coeff",),
    "layer_norm": ("ln_mu", "ln_std"),
}


@dataclass(frozen=True)
class NormalisedCodes(SparseCodes):
    """Codes of samples that an SAE has normalised, with what is needed to undo that.

    Parameters
    ----------
    norms : mapping of str to tensor of shape (n, 1)
        SAELens's own numbers of each sample, by SAELens's own names.
    """

    norms: Mapping[str, Tensor]

    @override
    def to(self, device: torch.device | str) -> NormalisedCodes:
        codes = super().to(device)
        norms = {name: values.to(device) for name, values in self.norms.items()}
        return NormalisedCodes(codes.indices, codes.values, codes.n_atoms, norms)

    @override
    def __getitem__(self, rows: slice) -> NormalisedCodes:
        codes = super().__getitem__(rows)
        norms = {name: values[rows] for name, values in self.norms.items()}
        return NormalisedCodes(codes.indices, codes.values, codes.n_atoms, norms)


@dataclass
class SAEDictionary:
    """A SAELens SAE as a :class:`~dbksvd.dictionaries.dictionary.SparseDictionary`.

    Parameters
    ----------
    sae : sae_lens.SAE
        The SAE, with decoder rows of unit norm.
    """

    sae: SAE[Any]

    @property
    def atoms(self) -> Tensor:
        """Decoder rows, shape (m, d)."""
        return self.sae.W_dec.detach()

    @property
    def bias(self) -> Tensor:
        """Decoder bias, shape (d,)."""
        return self.sae.b_dec.detach()

    @torch.no_grad()
    def encode(self, x: Tensor | np.ndarray[Any, Any]) -> SparseCodes:
        """Return the codes of `x` (n, d); dense latents exist for one block of rows at a time.

        Raises
        ------
        ValueError
            If `x` is no floating matrix of the SAE's width.
        """
        return self.encode_as(x, self.sae.W_dec)

    def encode_as(self, x: Tensor | np.ndarray[Any, Any], rows: Tensor) -> SparseCodes:
        """Return the codes of samples (n, d) that are as wide as the rows of a weight."""
        x = as_samples(x, rows).to(self.sae.dtype)
        if not len(x):  # SAELens's layer_norm needs a row
            return self.encode(x.new_ones(1, x.shape[1]))[slice(0)]
        if hasattr(self.sae, "encode_sparse"):
            return self.sae.encode_sparse(x)
        blocks = [self._encode_block(rows) for rows in x.split(ROWS_PER_BLOCK)]
        codes = concatenate_codes([codes for codes, _ in blocks])
        if not self._kept:
            return codes
        norms = {name: torch.cat([found[name] for _, found in blocks]) for name in self._kept}
        return NormalisedCodes(codes.indices, codes.values, codes.n_atoms, norms)

    def _encode_block(self, rows: Tensor) -> tuple[SparseCodes, dict[str, Tensor]]:
        latents = self.sae.encode(rows)
        codes = SparseCodes.from_dense(latents.to_dense() if latents.is_sparse else latents)
        return codes, {name: self.sae.__dict__.pop(name) for name in self._kept}

    @torch.no_grad()
    def decode(self, codes: SparseCodes, dtype: torch.dtype | None = None) -> Tensor:
        """Return the reconstruction (n, d) by the SAE's own decoder, computed in `dtype`.

        Raises
        ------
        ValueError
            If the codes are over another number of latents, or if the SAE normalises samples and
            the codes do not come from :meth:`encode`: nothing else says by how much.
        """
        check_codes(codes, len(self.sae.W_dec))
        if self._kept and not isinstance(codes, NormalisedCodes):
            raise ValueError(
                "codes: expected what encode() of this dictionary returned, since it undoes "
                f"normalize_activations={self.sae.cfg.normalize_activations!r} sample by sample, "
                f"got {type(codes).__name__}"
            )
        if hasattr(self.sae, "encode_sparse"):
            return decode_in(dtype, self.sae, codes)
        starts = range(0, max(len(codes), 1), ROWS_PER_BLOCK)
        blocks = (codes[slice(start, start + ROWS_PER_BLOCK)] for start in starts)
        return torch.cat([self._decode_block(block, dtype) for block in blocks])

    def _decode_block(self, codes: SparseCodes, dtype: torch.dtype | None) -> Tensor:
        if isinstance(codes, NormalisedCodes):
            self.sae.__dict__.update(codes.norms)
        return decode_in(dtype, self.sae, codes.to_dense())

    @property
    def _kept(self) -> tuple[str, ...]:
        return NORMS.get(self.sae.cfg.normalize_activations, ())
