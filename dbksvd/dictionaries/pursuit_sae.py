"""The ``dbksvd`` architecture: SAELens's view of a dictionary coded by matching pursuit."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from sae_lens.saes.sae import SAE, SAEConfig
from torch import Tensor
from typing_extensions import override

from dbksvd.dictionaries.saved import ARCHITECTURE, save_sae
from dbksvd.ops.inputs import HALF, restore_norms
from dbksvd.ops.pursuit.gram import encode_again


@dataclass
class PursuitSAEConfig(SAEConfig):
    """Settings of :class:`PursuitSAE`; all but the last are those of ``PursuitSettings``.

    Parameters
    ----------
    k : int
        Most non-zero latents a sample may have.
    method : {"mp", "omp", "ols"}
        Matching pursuit, orthogonal matching pursuit or orthogonal least squares.
    nonnegative : bool
        Whether coefficients must be ≥ 0.
    refit : bool
        Whether coefficients are refitted by least squares on the final support.
    rtol : float
        Relative residual norm at which the pursuit of a sample ends.
    product_dtype : {None, "bfloat16"}
        Dtype in which samples are multiplied with atoms; None is their own.
    threshold : float
        Product with the residual, in the unit of the samples, up to which no atom is picked.
    penalties : None or sequence of m floats
        Fraction of the squared norm of the sample that the squared product of each atom with the
        residual must exceed for the atom to be picked.
    sign_split : bool
        Whether the rows of ``W_dec`` are ``[D; -D]``: samples are then coded over D, and a
        coefficient z is given as the two latents relu(z) and relu(-z).
    """

    k: int = 1
    method: Literal["mp", "omp", "ols"] = "mp"
    nonnegative: bool = False
    refit: bool = True
    rtol: float = 0.0
    product_dtype: Literal["bfloat16"] | None = None
    threshold: float = 0.0
    penalties: Sequence[float] | None = None
    sign_split: bool = False

    @override
    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sign_split and (self.nonnegative or self.d_sae % 2):
            raise ValueError(
                "sign_split: expected a signed dictionary stored as the 2m rows [D; -D], got "
                f"nonnegative={self.nonnegative}, d_sae={self.d_sae}"
            )


class PursuitSAE(SAE[PursuitSAEConfig]):
    """An SAE whose encoder is a sparse pursuit over the rows of its decoder."""

    # W_enc is always W_decᵀ, so that assignments to it by the base class are dropped (as in
    # SAELens's own matching pursuit).
    @property
    def W_enc(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        """The transposed decoder, shape (d, m)."""
        return self.W_dec.T

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        if name != "W_enc":
            super().__setattr__(name, value)

    @property
    def is_signed(self) -> bool:
        """Whether latents can be negative."""
        return not (self.cfg.nonnegative or self.cfg.sign_split)

    @override
    def process_sae_in(self, sae_in: Tensor) -> Tensor:
        """Return centred inputs; not rounded where weights are stored in half precision."""
        if self.dtype not in HALF:
            return super().process_sae_in(sae_in)
        inputs = self.hook_sae_input(self.reshape_fn_in(sae_in.float()))
        bias = self.b_dec.float() * self.cfg.apply_b_dec_to_input
        return self.run_time_activation_norm_fn_in(inputs) - bias

    @override
    def save_model(self, path: str | Path) -> tuple[Path, Path]:
        """Write both files into a folder, as :meth:`dbksvd.Dictionary.save`."""
        return save_sae(super().save_model, path)

    @override
    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Return dense latents of shape (…, m) of `x` (…, d)."""
        inputs = self.process_sae_in(x)
        cfg = self.cfg
        atoms = self.W_dec[: cfg.d_sae // 2] if cfg.sign_split else self.W_dec
        rows = inputs.reshape(-1, cfg.d_in)
        if self.dtype in HALF:
            atoms = restore_norms(atoms)
        codes = encode_again(
            rows,
            atoms,
            cfg.k,
            method=cfg.method,
            nonnegative=cfg.nonnegative,
            refit=cfg.refit,
            rtol=cfg.rtol,
            threshold=cfg.threshold,
            penalties=cfg.penalties,
            product_dtype=cfg.product_dtype,
        )
        if cfg.sign_split:
            codes = codes.split_signs()
        latents = codes.to_dense().to(self.dtype).reshape(*inputs.shape[:-1], cfg.d_sae)
        return self.hook_sae_acts_post(latents)

    @override
    def decode(self, feature_acts: Tensor) -> Tensor:
        """Return the reconstruction (…, d) of latents (…, m)."""
        out = feature_acts @ self.W_dec + self.b_dec * self.cfg.apply_b_dec_to_input
        out = self.run_time_activation_norm_fn_out(self.hook_sae_recons(out))
        return self.reshape_fn_out(out, self.d_head)

    @override
    def fold_W_dec_norm(self) -> None:
        raise NotImplementedError("atoms have unit norm and the encoder is tied to them")

    def split_signs(self) -> PursuitSAE:
        """Return the twin with 2m latents relu(z), relu(-z) over ``[D; -D]``.

        SAEBench counts L0 by ``!= 0`` and density by ``> 0``; the two agree only where latents
        are ≥ 0. Reconstruction and L0 are unchanged.

        Raises
        ------
        ValueError
            If latents are non-negative already.
        """
        if not self.is_signed:
            raise ValueError("split_signs: expected signed latents, got non-negative ones")
        config = replace(
            self.cfg,
            d_sae=2 * self.cfg.d_sae,
            sign_split=True,
            metadata=copy.deepcopy(self.cfg.metadata),
        )
        twin = PursuitSAE(config)
        atoms = self.W_dec.detach()
        twin.load_state_dict({"W_dec": torch.cat([atoms, -atoms]), "b_dec": self.b_dec.detach()})
        return twin
