"""Training on centred samples, and how the centre gets into the weights that are saved.

SAELens divides samples by their mean norm, the common offset of all samples included. Where a few
coordinates have a large constant ("massive activations"), what differs between samples is then far
smaller than the step of the optimizer. Here the mean is subtracted first, so that a training does
not depend on the offset of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sae_lens.saes.sae import TrainingSAE
from sae_lens.training.activation_scaler import ActivationScaler
from torch import Tensor
from typing_extensions import override

from dbksvd.base.shapes import Bias


class CentredScaler(ActivationScaler):
    """SAELens's scaler of samples, for ``(x − centre) · factor``.

    Parameters
    ----------
    centre : tensor of shape (d,)
        What is subtracted before samples are measured and scaled.
    """

    def __init__(self, centre: Bias) -> None:
        super().__init__()
        self.centre = centre

    @override
    def scale(self, acts: Tensor) -> Tensor:
        return super().scale(acts - self.centre.to(acts.device))

    @override
    def unscale(self, acts: Tensor) -> Tensor:
        return super().unscale(acts) + self.centre.to(acts.device)


@torch.no_grad()
def take_weights_(
    sae: TrainingSAE[Any], scaler: ActivationScaler, weights: Mapping[str, Tensor]
) -> None:
    """Let an SAE in training begin where a finished one ended: the inverse of `fold_scaler_`.

    Parameters
    ----------
    sae : TrainingSAE
        An SAE with an encoder of its own and a decoder bias that it subtracts; changed in place.
    scaler : ActivationScaler
        What its inputs come through.
    weights : mapping of str to tensor
        ``W_enc``, ``b_enc``, ``W_dec`` of unit rows and ``b_dec``, for samples in their own unit.
    """
    factor = scaler.scaling_factor
    assert factor is not None  # the training has set it
    centre = scaler.centre.to(sae.b_dec) if isinstance(scaler, CentredScaler) else 0.0
    # latents are scaled with the samples, so that both sides of the SAE keep their weights
    own = {
        "W_enc": weights["W_enc"],
        "b_enc": weights["b_enc"] * factor,
        "W_dec": weights["W_dec"],
        "b_dec": (weights["b_dec"].to(sae.b_dec) - centre) * factor,
    }
    for name, tensor in own.items():
        getattr(sae, name).copy_(tensor)


@torch.no_grad()
def fold_scaler_(sae: TrainingSAE[Any], scaler: ActivationScaler) -> None:
    """Let an SAE that was trained on scaled samples take the samples themselves.

    Its latents then have the unit of the samples, and its reconstructions are samples.

    Parameters
    ----------
    sae : TrainingSAE
        An SAE that subtracts its decoder bias from its inputs; changed in place.
    scaler : ActivationScaler
        What its inputs came through.
    """
    assert scaler.scaling_factor is not None  # the training has set it
    sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if not isinstance(scaler, CentredScaler):
        return
    assert sae.cfg.apply_b_dec_to_input  # so a shift of the bias shifts the inputs
    # in float64: the bias may be small beside the centre, and the sum is rounded once
    for bias in (sae.b_dec, getattr(sae, "b_router", None)):
        if bias is not None:
            bias.data = (bias.double() + scaler.centre.to(bias.device).double()).to(bias.dtype)
