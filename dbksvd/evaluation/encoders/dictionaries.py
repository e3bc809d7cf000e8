"""A dictionary with another encoder than its own, which uses as many atoms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor
from typing_extensions import override

from dbksvd.base.codes import SparseCodes
from dbksvd.base.shapes import Activations, Atoms, Bias
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings, SparseDictionary
from dbksvd.dictionaries.pursuit_sae import PursuitSAE, PursuitSAEConfig
from dbksvd.dictionaries.signs import has_signed_codes
from dbksvd.fit.ksvd.calibration import MOST_TIMES_MEAN, Calibration
from dbksvd.ops.lasso import find_penalty, lasso_encode


@dataclass
class LassoDictionary:
    """Atoms and a bias, coded by the lasso (:func:`dbksvd.ops.lasso.lasso_encode`).

    Parameters
    ----------
    atoms : tensor of shape (m, d)
        Unit atoms.
    bias : tensor of shape (d,)
        Subtracted before coding, added after decoding.
    penalty : float
        Weight of the L1 norm, in the unit of the samples.
    nonnegative, refit : bool
        As of the function.
    """

    atoms: Atoms
    bias: Bias
    penalty: float
    nonnegative: bool
    refit: bool = False

    def encode(self, x: Activations) -> SparseCodes:
        """Return the codes of `x`, shape (n, d)."""
        return lasso_encode(
            x - self.bias,
            self.atoms,
            self.penalty,
            nonnegative=self.nonnegative,
            refit=self.refit,
        )

    def decode(self, codes: SparseCodes, dtype: torch.dtype | None = None) -> Activations:
        """Return the reconstruction ``Z @ atoms + bias``, computed in `dtype`."""
        return codes.decode(self.atoms.to(dtype)) + self.bias.to(dtype)


class Recoder:
    """One dictionary with other encoders, which use as many atoms a sample.

    Codes are non-negative where the dictionary's own are.

    Parameters
    ----------
    dictionary : SparseDictionary
        What a method has learned.
    k : int
        Non-zeros a sample: of each for a pursuit, on average for the others.
    samples : tensor of shape (n, d)
        Samples on which a threshold or penalty for that average is found.
    """

    def __init__(self, dictionary: SparseDictionary, k: int, samples: Activations) -> None:
        self.dictionary, self.k = dictionary, k
        self.nonnegative = not has_signed_codes(dictionary)
        self._centred = samples.to(dictionary.atoms) - dictionary.bias

    def make(self, encoder: str) -> SparseDictionary:
        """Return the same atoms and bias with an encoder of :data:`.settings.LABELS`."""
        atoms, bias = self.dictionary.atoms, self.dictionary.bias
        if encoder == "own":
            return self.dictionary
        if encoder in ("lasso", "lasso_refit"):
            refit = encoder == "lasso_refit"
            return LassoDictionary(atoms, bias, self._penalty, self.nonnegative, refit)
        settings = PursuitSettings(
            k=min(self.k, len(atoms)),
            method="mp" if encoder == "mp" else "ols",
            nonnegative=self.nonnegative,
        )
        if encoder == "ols_mean":
            settings = replace(settings, k=min(MOST_TIMES_MEAN * self.k, len(atoms)))
            settings = Calibration(self._centred).set_threshold(atoms, self.k, settings)
        return Dictionary(atoms, bias, settings)

    @cached_property
    def _penalty(self) -> float:
        atoms = self.dictionary.atoms
        return find_penalty(self._centred, atoms, self.k, nonnegative=self.nonnegative)


class RecodedSAE(PursuitSAE):
    """Any dictionary as an SAE with latents ≥ 0, for evals that want one.

    Signed codes come sign-split, over the rows [D; −D].

    Parameters
    ----------
    dictionary : SparseDictionary
        It encodes. Its decoder is atoms and bias.
    signed : bool
        Whether its codes may be negative.
    """

    def __init__(self, dictionary: SparseDictionary, *, signed: bool) -> None:
        atoms = dictionary.atoms.detach()
        rows = torch.cat([atoms, -atoms]) if signed else atoms
        config = PursuitSAEConfig(
            d_in=atoms.shape[1],
            d_sae=len(rows),
            nonnegative=True,
            metadata=SAEMetadata(),
        )
        super().__init__(config)
        self.load_state_dict({"W_dec": rows, "b_dec": dictionary.bias.detach()})
        self.requires_grad_(False)
        self._encode: Callable[[Tensor], SparseCodes] = dictionary.encode
        self._signed = signed

    @override
    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Return dense latents (…, m), or (…, 2m) of signed codes, of `x` (…, d)."""
        codes = self._encode(x.reshape(-1, self.cfg.d_in))
        latents = (codes.split_signs() if self._signed else codes).to_dense()
        return latents.to(self.dtype).reshape(*x.shape[:-1], self.cfg.d_sae)
