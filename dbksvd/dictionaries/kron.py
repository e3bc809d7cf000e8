"""KronSAE: latents are gated products of two small codes per head.

``README.md`` in this folder has the equations, the proof of the selection, the operations and the
differences from the paper.

Legend: h heads, m the base and n the extension of a head, F = h·m·n latents; latent (i, j) of head
g has the index (g·m + i)·n + j.

References
----------
Kurochkin et al. (2025), KronSAE, arXiv 2505.22255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from sae_lens.saes.sae import SAEConfig, TrainingSAEConfig, TrainStepInput
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from typing_extensions import override

from dbksvd.base.codes import SparseCodes
from dbksvd.dictionaries.kron_latents import (
    combine_by_mand,
    gather_factors,
    select_among,
    select_latents,
)
from dbksvd.dictionaries.sparse_sae import (
    SparseSAE,
    SparseTrainingSAE,
    check_config,
    make_codes,
)

ARCHITECTURE = "kron"
COMBINATIONS = ("mand", "product", "raw")


@dataclass
class KronSAEConfig(SAEConfig):
    """Settings of :class:`KronSAE`; ``d_sae`` must be ``n_heads · base · extension``.

    Parameters
    ----------
    k : int
        Most active latents of a sample, over all heads.
    n_heads, base, extension : int
        h, m and n.
    combine : {"mand", "product", "raw"}
        Latent of the factors u, v before ReLU: ``√(ReLU u · ReLU v)``, ``ReLU u · ReLU v`` or
        ``ReLU(u · v)``. In "raw" two negative factors make an active latent.
    """

    k: int = 1
    n_heads: int = 1
    base: int = 1
    extension: int = 1
    combine: Literal["mand", "product", "raw"] = "mand"

    @override
    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_heads(self)


@dataclass
class KronTrainingSAEConfig(TrainingSAEConfig):
    """Settings of :class:`KronTrainingSAE`.

    Parameters
    ----------
    k, n_heads, base, extension, combine
        As in :class:`KronSAEConfig`.
    aux_loss_coefficient : float
        Weight of the loss that revives dead latents; 0 turns it off.
    """

    k: int = 1
    n_heads: int = 1
    base: int = 1
    extension: int = 1
    combine: Literal["mand", "product", "raw"] = "mand"
    aux_loss_coefficient: float = 1 / 32
    decoder_init_norm: float | None = 1.0

    @override
    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_heads(self)


def _check_heads(cfg: Any) -> None:
    sizes = {"n_heads": cfg.n_heads, "base": cfg.base, "extension": cfg.extension}
    check_config(cfg, {"d_in": cfg.d_in, **sizes}, cfg.d_sae)
    if cfg.n_heads * cfg.base * cfg.extension != cfg.d_sae:
        raise ValueError(
            "n_heads, base, extension: expected a product of "
            f"d_sae={cfg.d_sae}, got {' · '.join(str(size) for size in sizes.values())}"
        )
    if cfg.combine not in COMBINATIONS:
        raise ValueError(f"combine: expected one of {', '.join(COMBINATIONS)}, got {cfg.combine!r}")


class KronEncoder(SparseSAE):
    """Factors of every head by one matrix product; only chosen latents are formed.

    ``W_factors`` (h, m + n, d) and ``b_factors`` (h, m + n) hold P and Q of each head side by side.
    """

    W_factors: nn.Parameter
    b_factors: nn.Parameter

    @property
    def W_enc(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        """Rows P_i + Q_j as columns, shape (d, F): the direction that drives latent (i, j).

        Made on demand for metrics on weights; the encoder is not this linear map.
        """
        return self._sum_factors().flatten(0, 2).T

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        if name != "W_enc":  # a property here; SAELens's base class assigns it
            super().__setattr__(name, value)

    def _sum_factors(self) -> Tensor:
        """Return P_i + Q_j of all heads, shape (h, m, n, d)."""
        p, q = self.W_factors.detach().split([self.cfg.base, self.cfg.extension], dim=1)
        return p.unsqueeze(2) + q.unsqueeze(1)

    @override
    def initialize_weights(self) -> None:
        """Draw the encoder from N(0, 1/2F); decoder row (i, j) is P_i + Q_j, normalised."""
        cfg = self.cfg
        options = {"dtype": self.dtype, "device": self.device}
        shape = (cfg.n_heads, cfg.base + cfg.extension)
        factors = torch.randn(*shape, cfg.d_in, **options) / (2 * cfg.d_sae) ** 0.5
        self.W_factors = nn.Parameter(factors)
        self.b_factors = nn.Parameter(torch.zeros(*shape, **options))
        self.W_dec = nn.Parameter(F.normalize(self._sum_factors().flatten(0, 2), dim=1))
        self.b_dec = nn.Parameter(torch.zeros(cfg.d_in, **options))

    def encode_factors(self, inputs: Tensor) -> Tensor:
        """Return the m + n factors of each head, shape (n, h, m + n), of processed inputs."""
        weights, biases = self.W_factors.flatten(0, 1), self.b_factors.flatten()
        factors = F.linear(inputs, weights, biases).to(self.dtype)
        if self.cfg.combine != "raw":
            factors = factors.relu()
        return factors.unflatten(1, self.b_factors.shape)

    @override
    def encode_with_state(self, inputs: Tensor) -> tuple[SparseCodes, Tensor]:
        """Return the codes of processed inputs (n, d) and the factors (n, h, m + n)."""
        factors = self.encode_factors(inputs)
        cfg = self.cfg
        with torch.no_grad():
            signed = cfg.combine == "raw"
            latents = select_latents(factors, cfg.base, cfg.k, signed=signed)
        values = self.combine_factors(factors, latents)
        return make_codes(latents, values, cfg.d_sae, self.dtype), factors

    def combine_factors(self, factors: Tensor, latents: Tensor) -> Tensor:
        """Return the values (n, k) of latents chosen per sample (n, k), from factors."""
        p, q = gather_factors(factors, self.cfg.base, latents)
        if self.cfg.combine == "mand":
            return combine_by_mand(p, q)
        return (p * q).relu()

    @override
    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        """Take inputs and give latents in raw units from now on; decoder rows stay unit.

        Latents fall by the factor s of the inputs where each factor falls by s (mAND, of degree 1)
        or by √s (products, of degree 2).
        """
        by = scaling_factor if self.cfg.combine == "mand" else scaling_factor**0.5
        self.W_factors.mul_(scaling_factor / by)
        self.b_factors.div_(by)
        self.b_dec.div_(scaling_factor)
        self.cfg.normalize_activations = "none"


class KronSAE(KronEncoder):
    """KronSAE for inference: TopK over the combined factors of all heads."""

    cfg: KronSAEConfig


class KronTrainingSAE(KronEncoder, SparseTrainingSAE):
    """KronSAE in training."""

    cfg: KronTrainingSAEConfig

    @override
    def calculate_aux_loss(
        self,
        step_input: TrainStepInput,
        feature_acts: Tensor,
        hidden_pre: Tensor,
        sae_out: Tensor,
    ) -> dict[str, Tensor]:
        """Return the loss that revives dead latents.

        As in SAELens's TopK, the d/2 largest dead latents explain the residual; with fewer dead
        latents than d/2 the loss is scaled down.

        Parameters
        ----------
        step_input : TrainStepInput
            Inputs (n, d), and which latents are dead.
        feature_acts : tensor of shape (n, m)
            Latents of the batch; not used.
        hidden_pre : tensor of shape (n, h, m + n)
            The factors.
        sae_out : tensor of shape (n, d)
            Reconstructions.
        """
        dead = step_input.dead_neuron_mask
        if dead is None or not self.cfg.aux_loss_coefficient or not dead.any():
            return {"auxiliary_reconstruction_loss": sae_out.new_zeros(())}
        candidates = dead.nonzero().squeeze(1)
        most = max(self.cfg.d_in // 2, 1)
        with torch.no_grad():
            k = min(most, len(candidates))
            latents = select_among(hidden_pre, self.cfg.base, candidates, k)
        values = self.combine_factors(hidden_pre, latents)
        codes = make_codes(latents, values, self.cfg.d_sae, self.dtype)
        scale = min(len(candidates) / most, 1.0)
        loss = self.measure_revival_loss(codes, step_input, sae_out, scale)
        return {"auxiliary_reconstruction_loss": loss}
