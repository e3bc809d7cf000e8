"""SAEs of which a part is kept from learning: what a score gives to them is its floor."""

from __future__ import annotations

from typing import Any

import torch
from sae_lens.saes.sae import TrainingSAE
from torch import Tensor, nn

from dbksvd.fit.sae.settings import TrainingSettings

# Least cosine of a soft-frozen row to its start.
LEAST_COSINE = 0.8
# Matrices that make latents of a sample; biases and thresholds always learn.
ENCODER_WEIGHTS = ("W_enc", "W_factors", "W_router")


class Restraint:
    """What keeps encoder or decoder of an SAE near the random weights it starts with.

    A frozen matrix gets no gradient. A soft-frozen decoder is put back after each step: a row w
    whose cosine to its start s is below c = .8 becomes |w| (c s + √(1 − c²) p), with p the unit
    vector of the part of w that is orthogonal to s, so the nearest direction that is allowed.

    Parameters
    ----------
    sae : TrainingSAE
        With the weights of its start; changed in place.
    settings : TrainingSettings
        Their ``decoder`` and ``encoder`` say what is kept.

    References
    ----------
    Korznikov et al. (2026), "Sanity checks for sparse autoencoders: do SAEs beat random
    baselines?", arXiv:2602.14111.
    """

    def __init__(self, sae: TrainingSAE[Any], settings: TrainingSettings) -> None:
        self._start: Tensor | None = None
        if settings.encoder == "frozen":
            _freeze_(sae, ENCODER_WEIGHTS)
        if settings.decoder == "frozen":
            _freeze_(sae, ("W_dec",))
        if settings.decoder == "soft_frozen":
            self._start = nn.functional.normalize(sae.W_dec.detach().clone(), dim=1)

    @torch.no_grad()
    def apply_(self, sae: TrainingSAE[Any]) -> None:
        """Put the rows of a soft-frozen decoder back, after a step."""
        if self._start is not None:
            keep_near_(sae.W_dec, self._start, LEAST_COSINE)


def keep_near_(rows: Tensor, starts: Tensor, cosine: float) -> None:
    """Turn rows (m, d) below a cosine to their unit vectors `starts` (m, d) back to it, in place.

    Norms stay. The nearest direction at that cosine lies in the plane of the row and its start.
    """
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    units = rows / norms.clamp(min=torch.finfo(rows.dtype).tiny)
    along = (units * starts).sum(dim=1, keepdim=True)
    aside = nn.functional.normalize(units - along * starts, dim=1)
    nearest = nn.functional.normalize(cosine * starts + (1 - cosine**2) ** 0.5 * aside, dim=1)
    rows.copy_(torch.where(along < cosine, norms * nearest, rows))


def _freeze_(sae: TrainingSAE[Any], names: tuple[str, ...]) -> None:
    for name, weight in sae.named_parameters():
        if name in names:
            weight.requires_grad_(False)
