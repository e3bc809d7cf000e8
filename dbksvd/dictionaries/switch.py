"""Switch SAE: a router sends each sample to one expert, a TopK SAE of its own.

``README.md`` in this folder has the equations, the operations and the differences from the paper.

References
----------
Mudide, Engels, Michaud, Tegmark, Schroeder de Witt (2024), "Efficient dictionary learning with
Switch sparse autoencoders", arXiv 2410.08201.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sae_lens.saes.sae import SAEConfig, TrainingSAEConfig, TrainStepInput
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from typing_extensions import override

from dbksvd.base.codes import SparseCodes
from dbksvd.base.shapes import Activations
from dbksvd.dictionaries.geometric_median import find_geometric_median
from dbksvd.dictionaries.sparse_sae import (
    SparseSAE,
    SparseTrainingSAE,
    check_config,
    make_codes,
)

ARCHITECTURE = "switch"


@dataclass
class SwitchSAEConfig(SAEConfig):
    """Settings of :class:`SwitchSAE`.

    Parameters
    ----------
    k : int
        Most active latents of a sample, at most ``d_sae / n_experts``.
    n_experts : int
        Experts; must divide ``d_sae``, the latents of all experts together.
    """

    k: int = 1
    n_experts: int = 1

    @override
    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_experts(self, self.n_experts)


@dataclass
class SwitchTrainingSAEConfig(TrainingSAEConfig):
    """Settings of :class:`SwitchTrainingSAE`.

    Parameters
    ----------
    k, n_experts : int
        As in :class:`SwitchSAEConfig`.
    load_balance_coefficient : float
        α, the weight of the load-balance loss.
    aux_loss_coefficient : float
        Weight of the loss that revives dead latents; 0 turns it off.
    """

    k: int = 1
    n_experts: int = 1
    load_balance_coefficient: float = 3.0
    aux_loss_coefficient: float = 1 / 32
    decoder_init_norm: float | None = 1.0

    @override
    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_experts(self, self.n_experts)


def _check_experts(cfg: SAEConfig, n_experts: int) -> None:
    if n_experts < 1 or cfg.d_sae % n_experts:
        raise ValueError(
            f"n_experts: expected a divisor of d_sae={cfg.d_sae} (equal experts), got {n_experts}"
        )
    check_config(cfg, {"d_in": cfg.d_in, "d_sae": cfg.d_sae}, cfg.d_sae // n_experts)


class SwitchEncoder(SparseSAE):
    """The router and the experts; samples are grouped, so that each is coded by one expert only."""

    b_router: nn.Parameter
    W_router: nn.Parameter

    @property
    def expert_width(self) -> int:
        """Latents of one expert."""
        return self.cfg.d_sae // self.cfg.n_experts

    @override
    def initialize_weights(self) -> None:
        """Draw unit decoder rows; the encoder starts as their transpose."""
        cfg = self.cfg
        options = {"dtype": self.dtype, "device": self.device}
        rows = F.normalize(torch.randn(cfg.d_sae, cfg.d_in, **options), dim=1)
        self.W_dec = nn.Parameter(rows)
        self.W_enc = nn.Parameter(rows.T.clone().contiguous())
        self.b_dec = nn.Parameter(torch.zeros(cfg.d_in, **options))
        # Logits of inputs of unit expected square per coordinate then have variance 1/3.
        span = cfg.d_in**-0.5
        router = torch.empty(cfg.d_in, cfg.n_experts, **options).uniform_(-span, span)
        self.W_router = nn.Parameter(router)
        self.b_router = nn.Parameter(torch.zeros(cfg.d_in, **options))

    @torch.no_grad()
    def initialise_from_data(self, x: Activations) -> None:
        """Put both biases at the geometric median of `x` (n, d), a few thousand scaled rows."""
        median = find_geometric_median(x)
        self.b_dec.copy_(median)
        self.b_router.copy_(median)

    def route(self, inputs: Tensor) -> Tensor:
        """Return the probability (n, E) of each expert for processed inputs x − b_dec (n, d)."""
        # processed inputs lack b_dec, which the router does not subtract
        shift = self.b_dec * self.cfg.apply_b_dec_to_input - self.b_router
        return torch.softmax((inputs + shift) @ self.W_router, dim=1)

    @override
    def encode_with_state(self, inputs: Tensor) -> tuple[SparseCodes, Tensor]:
        """Return the codes of processed inputs (n, d) and the probabilities (n, E)."""
        probabilities = self.route(inputs)
        chosen, experts = probabilities.max(dim=1)
        order, groups = self._group(inputs, experts)
        values, indices = [], []
        for expert, (rows, weights) in enumerate(zip(groups, self._expert_weights(), strict=True)):
            top = (rows @ weights).topk(self.cfg.k, dim=1)
            values.append(top.values.relu())
            indices.append(top.indices + expert * self.expert_width)
        back = _invert_order(order)
        scaled = torch.cat(values)[back] * chosen.unsqueeze(1)
        codes = make_codes(torch.cat(indices)[back], scaled, self.cfg.d_sae, self.dtype)
        return codes, probabilities

    def _group(self, inputs: Tensor, experts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the order that sorts rows by expert, and the rows of each expert."""
        order = experts.argsort(stable=True)
        counts = torch.bincount(experts, minlength=self.cfg.n_experts).tolist()
        return order, inputs[order].split(counts)

    def _expert_weights(self) -> tuple[Tensor, ...]:
        # one split instead of E slices: the gradient is written once
        return self.W_enc.split(self.expert_width, dim=1)

    @override
    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        """Take inputs and give latents in raw units from now on.

        Trained on s·x, the SAE codes raw x by ``W_enc (x − b_dec / s)`` and routes by
        ``s W_router (x − b_router / s)``; decoder rows stay unit.
        """
        self.b_dec.div_(scaling_factor)
        self.b_router.div_(scaling_factor)
        self.W_router.mul_(scaling_factor)
        self.cfg.normalize_activations = "none"


class SwitchSAE(SwitchEncoder):
    """Switch SAE for inference: ``z = p_e · TopK(ReLU(W_e (x − b_dec)))``, e the likeliest."""

    cfg: SwitchSAEConfig


class SwitchTrainingSAE(SwitchEncoder, SparseTrainingSAE):
    """Switch SAE in training."""

    cfg: SwitchTrainingSAEConfig

    @override
    def calculate_aux_loss(
        self,
        step_input: TrainStepInput,
        feature_acts: Tensor,
        hidden_pre: Tensor,
        sae_out: Tensor,
    ) -> dict[str, Tensor]:
        """Return the load-balance loss and the loss that revives dead latents.

        Parameters
        ----------
        step_input : TrainStepInput
            Inputs (n, d), and which latents are dead.
        feature_acts : tensor of shape (n, m)
            Latents of the batch; not used.
        hidden_pre : tensor of shape (n, E)
            The router's probabilities.
        sae_out : tensor of shape (n, d)
            Reconstructions.
        """
        n_experts = self.cfg.n_experts
        experts = hidden_pre.detach().argmax(dim=1)
        counts = self.ranks.sum_(torch.bincount(experts, minlength=n_experts))
        routed = counts / counts.sum()
        balance = n_experts * (routed * hidden_pre.mean(dim=0)).sum()
        revival = sae_out.new_zeros(())
        dead = step_input.dead_neuron_mask
        if dead is not None and self.cfg.aux_loss_coefficient and dead.any():
            # Detached: reviving latents must not steer the router.
            chosen = hidden_pre.detach().gather(1, experts.unsqueeze(1))
            codes, scale = self._encode_dead(step_input.sae_in, experts, chosen, dead)
            revival = self.measure_revival_loss(codes, step_input, sae_out, scale)
        return {
            "load_balance_loss": self.cfg.load_balance_coefficient * balance,
            "auxiliary_reconstruction_loss": revival,
        }

    def _encode_dead(
        self, sae_in: Tensor, experts: Tensor, chosen: Tensor, dead: Tensor
    ) -> tuple[SparseCodes, Tensor]:
        """Return codes on the dead latents of each sample's own expert, and its scale (n,).

        As in SAELens's TopK, these are the d/2 largest products, negative ones too; with fewer
        dead latents than d/2 the scale falls below 1.
        """
        most = max(self.cfg.d_in // 2, 1)
        dead_of = dead.view(self.cfg.n_experts, -1)
        n_dead = dead_of.sum(dim=1)
        width = min(most, int(n_dead.max()))
        order, groups = self._group(self.process_sae_in(sae_in), experts)
        values, indices = [], []
        for expert, (rows, weights) in enumerate(zip(groups, self._expert_weights(), strict=True)):
            latents = dead_of[expert].nonzero().squeeze(1)
            k = min(width, len(latents))
            top = (rows @ weights[:, latents]).topk(k, dim=1)
            values.append(F.pad(top.values, (0, width - k)))
            indices.append(F.pad(latents[top.indices] + expert * self.expert_width, (0, width - k)))
        back = _invert_order(order)
        scaled = (torch.cat(values)[back] * chosen).to(self.dtype)
        codes = SparseCodes(torch.cat(indices)[back], scaled, self.cfg.d_sae)
        return codes, (n_dead / most).clamp(max=1).to(self.dtype)[experts]


def _invert_order(order: Tensor) -> Tensor:
    places = torch.arange(len(order), device=order.device)
    return torch.empty_like(order).scatter_(0, order, places)
