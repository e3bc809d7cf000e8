"""Features that fire together in blocks, with a covariance that is known."""

from __future__ import annotations

import torch
from sae_lens.synthetic import orthogonalize_embeddings
from torch import Tensor

from dbksvd.synthetic.base import TensorModel, draw_directions, seed_generator
from dbksvd.synthetic.settings import BlockCorrelatedSettings


class BlockCorrelated(TensorModel[BlockCorrelatedSettings]):
    """At most k features: the largest positive entries of a Gaussian with a block covariance.

    ``g ~ N(0, S)`` with S = 1 on the diagonal, ρ_b inside block b, 0 elsewhere; the code keeps the
    k largest positive entries of g. After the toy experiment of KronSAE (d = 64, 256 features,
    k = 8); its covariances were not published, so numbers are not comparable one to one.

    References
    ----------
    Kurochkin et al. (2025), arXiv:2505.22255, the experiment on synthetic correlated features.
    """

    @classmethod
    def make(cls, settings: BlockCorrelatedSettings, device: torch.device) -> BlockCorrelated:
        """Draw features, bias and the correlation of each block."""
        generator = seed_generator(settings.seed)
        features = draw_directions(settings.num_features, settings.hidden_dim, generator)
        if settings.orthogonalization_steps:
            features = orthogonalize_embeddings(features, settings.orthogonalization_steps)
        bias = settings.bias * draw_directions(1, settings.hidden_dim, generator)[0]
        low, high = settings.correlation
        blocks = settings.num_features // settings.block_size
        rho = low + (high - low) * torch.rand(blocks, generator=generator, dtype=torch.float32)
        tensors = {"features": features, "bias": bias, "block_correlation": rho}
        return cls(settings, {name: tensor.to(device) for name, tensor in tensors.items()})

    @property
    def covariance(self) -> Tensor:
        """S, float32 of shape (n_features, n_features)."""
        rho, size = self._tensors["block_correlation"], self.settings.block_size
        covariance = torch.block_diag(*(r.expand(size, size) for r in rho))
        return covariance.fill_diagonal_(1.0)

    def draw_codes(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Draw codes; no sample belongs to a component."""
        rho, size = self._tensors["block_correlation"], self.settings.block_size
        shared = torch.randn(n, len(rho), 1, device=rho.device, dtype=rho.dtype)
        own = torch.randn(n, len(rho), size, device=rho.device, dtype=rho.dtype)
        gaussian = rho.sqrt()[:, None] * shared + (1 - rho).sqrt()[:, None] * own
        top = gaussian.flatten(1).topk(self.settings.k, dim=1)
        codes = gaussian.new_zeros(n, len(rho) * size)
        return codes.scatter_(1, top.indices, top.values.relu()), None
