"""Llama Scope's SAE in training (He et al. 2024, arXiv:2410.20526); it is saved as a JumpReLU SAE.

SAELens's TopK offers the most of it: latents z = ReLU(W_e x + b_e), the k of a sample with the
largest z ‖d‖, an encoder that starts as the transposed decoder, zero biases of the encoder. This
class adds

- the loss, ‖x̂ − x‖² / ‖x − x̄‖ with x̄ the mean of the batch, and no other,
- decoder rows of norm ½ at most (section 3: larger ones are cut after each step),
- k that falls from d / 2 to its value over the first steps,
- no decoder bias in the input of the encoder, and zero at the start,
- the inference form: one threshold for all latents, the (n · k)-th largest of n samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sae_lens.saes.jumprelu_sae import JumpReLUSAEConfig
from sae_lens.saes.sae import SAEConfig, TrainStepInput, TrainStepOutput
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from torch import Tensor
from typing_extensions import override

from dbksvd.base.shapes import Activations
from dbksvd.ops.ranks import ALONE, Ranks

ARCHITECTURE = "llama_scope"
BLOCK = 1024  # samples whose latents are held at a time


@dataclass
class LlamaScopeTrainingSAEConfig(TopKTrainingSAEConfig):
    """Settings of :class:`LlamaScopeTrainingSAE`.

    Parameters
    ----------
    k_anneal_steps : int
        Steps over which k falls from d / 2 to its value.
    largest_norm : float
        Largest norm of a decoder row; all start there.
    """

    aux_loss_coefficient: float = 0.0
    apply_b_dec_to_input: bool = False
    decoder_init_norm: float | None = 0.5
    k_anneal_steps: int = 0
    largest_norm: float = 0.5

    @override
    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE

    @override
    def get_inference_config_class(self) -> type[SAEConfig]:
        return JumpReLUSAEConfig


class LlamaScopeTrainingSAE(TopKTrainingSAE):
    """Llama Scope's SAE under SAELens's ``SAETrainer``."""

    cfg: LlamaScopeTrainingSAEConfig
    threshold: Tensor
    # The processes that hold the other rows of a batch: the mean is that of all.
    ranks: Ranks = ALONE

    def __init__(self, cfg: LlamaScopeTrainingSAEConfig, use_error_term: bool = False) -> None:
        super().__init__(cfg, use_error_term)
        start = torch.zeros((), dtype=torch.float64, device=self.W_dec.device)
        self.register_buffer("threshold", start)
        self.mse_loss_fn = self.divide_errors

    @torch.no_grad()
    def initialise_from_data(self, _x: Activations) -> None:
        """Leave all biases at zero."""

    def count_active(self, step: int) -> int:
        """Return k at a step, counted from 0."""
        first = max(self.cfg.k, min(self.cfg.d_in // 2, self.cfg.d_sae))
        share = min(1.0, step / self.cfg.k_anneal_steps) if self.cfg.k_anneal_steps else 1.0
        return round(first + (self.cfg.k - first) * share)

    def divide_errors(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Return squared errors (n, d), divided by each sample's distance from the batch mean."""
        (rows,) = self.ranks.sum_numbers(len(wanted))
        mean = self.ranks.sum_(wanted.sum(dim=0)) / rows
        distances = torch.linalg.vector_norm(wanted - mean, dim=1, keepdim=True)
        return (found - wanted).square() / distances.clamp(min=torch.finfo(wanted.dtype).tiny)

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Cut the decoder's rows, set k, and go forward."""
        self.cut_norms_()
        self.activation_fn.k = self.count_active(step_input.n_training_steps)  # type: ignore[attr-defined]
        return super().training_forward_pass(step_input)

    @torch.no_grad()
    def cut_norms_(self) -> None:
        """Bring decoder rows back to the largest norm, where they are longer."""
        norms = torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True)
        self.W_dec.mul_((self.cfg.largest_norm / norms).clamp(max=1.0))

    @override
    def calculate_aux_loss(
        self,
        step_input: TrainStepInput,
        feature_acts: Tensor,
        hidden_pre: Tensor,
        sae_out: Tensor,
    ) -> dict[str, Tensor]:
        """Return none."""
        return {}

    @torch.no_grad()
    def set_threshold_(self, x: Activations) -> None:
        """Set the threshold of the inference form: as many latents of `x` are over it as TopK has.

        It lies in the middle between the last of these and the next smaller one.

        Parameters
        ----------
        x : tensor of shape (n, d)
            Scaled samples; the authors take 32,768.
        """
        kept = len(x) * self.cfg.k
        largest = x.new_empty(0)
        for rows in x.split(BLOCK):
            products = (self.process_sae_in(rows) @ self.W_enc + self.b_enc) * self.W_dec.norm(
                dim=1
            )
            found = torch.cat([largest, products.flatten()])
            largest = found.topk(min(kept + 1, len(found))).values
        self.threshold.fill_(max(0.0, float(largest[-2:].double().mean())))

    @override
    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        """Take samples as they are from now on; the threshold is in the unit of z ‖d‖."""
        super().fold_activation_norm_scaling_factor(scaling_factor)
        self.threshold /= scaling_factor

    @override
    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Give every latent the one threshold."""
        super().process_state_dict_for_saving_inference(state_dict)
        state_dict["threshold"] = torch.ones_like(self.b_enc) * float(self.threshold)
