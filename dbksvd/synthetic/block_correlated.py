"""Features that fire together in blocks, with a covariance that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from sae_lens.synthetic import orthogonalize_embeddings
from torch import Tensor

from dbksvd.base.old_settings import build_settings, check_at_least
from dbksvd.synthetic.base import TensorModel, draw_directions, seed_generator


@dataclass(frozen=True)
class BlockSettings:
    """How the toy is made.

    Parameters
    ----------
    num_features, hidden_dim : int
        Features, and coordinates of the activations.
    block_size : int
        Features in a block; divides `num_features`.
    k : int
        Most features that fire on a sample.
    correlation : list of two floats
        Each block's correlation is uniform between these.
    bias : float
        Norm of the bias.
    orthogonalization_steps : int
        Gradient steps that push the features apart (SAELens's ``orthogonalize_embeddings``).
    seed : int
        Decides the features and the correlations.
    """

    num_features: int
    hidden_dim: int
    block_size: int
    k: int
    correlation: list[float]
    bias: float = 0.0
    orthogonalization_steps: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"hidden_dim": self.hidden_dim, "block_size": self.block_size, "k": self.k}
        check_at_least(1, "activations.synthetic", **counts)
        check_at_least(self.k, "activations.synthetic", num_features=self.num_features)
        if self.num_features % self.block_size:
            raise ValueError(
                "activations.synthetic.block_size: expected a divisor of num_features = "
                f"{self.num_features}, got {self.block_size}"
            )
        low, high = self.correlation
        if not 0 <= low <= high < 1:
            raise ValueError(
                "activations.synthetic.correlation: expected 0 <= low <= high < 1, "
                f"got {self.correlation}"
            )


class BlockCorrelated(TensorModel):
    """At most k features: the largest positive entries of a Gaussian with a block covariance.

    ``g ~ N(0, S)`` with S = 1 on the diagonal, ρ_b inside block b, 0 elsewhere; the code keeps the
    k largest positive entries of g. After the toy experiment of KronSAE (d = 64, 256 features,
    k = 8); its covariances were not published, so numbers are not comparable one to one.

    References
    ----------
    Kurochkin et al. (2025), arXiv:2505.22255, the experiment on synthetic correlated features.
    """

    @classmethod
    def make(cls, settings: Mapping[str, Any], device: torch.device) -> BlockCorrelated:
        """Draw features, bias and the correlation of each block."""
        checked = build_settings(BlockSettings, settings, "activations.synthetic")
        generator = seed_generator(checked.seed)
        features = draw_directions(checked.num_features, checked.hidden_dim, generator)
        if checked.orthogonalization_steps:
            features = orthogonalize_embeddings(features, checked.orthogonalization_steps)
        bias = checked.bias * draw_directions(1, checked.hidden_dim, generator)[0]
        low, high = checked.correlation
        blocks = checked.num_features // checked.block_size
        rho = low + (high - low) * torch.rand(blocks, generator=generator)
        tensors = {"features": features, "bias": bias, "block_correlation": rho}
        return cls(settings, {name: tensor.to(device) for name, tensor in tensors.items()})

    @property
    def covariance(self) -> Tensor:
        """S, float32 of shape (n_features, n_features)."""
        rho, size = self._tensors["block_correlation"], self.settings["block_size"]
        covariance = torch.block_diag(*(r.expand(size, size) for r in rho))
        return covariance.fill_diagonal_(1.0)

    def draw_codes(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Draw codes; no sample belongs to a component."""
        rho, size = self._tensors["block_correlation"], self.settings["block_size"]
        shared = torch.randn(n, len(rho), 1, device=rho.device)
        own = torch.randn(n, len(rho), size, device=rho.device)
        gaussian = rho.sqrt()[:, None] * shared + (1 - rho).sqrt()[:, None] * own
        top = gaussian.flatten(1).topk(self.settings["k"], dim=1)
        codes = gaussian.new_zeros(n, len(rho) * size)
        return codes.scatter_(1, top.indices, top.values.relu()), None
