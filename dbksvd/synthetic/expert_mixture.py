"""A mixture whose components have subspaces and features of their own, for routers to find."""

from __future__ import annotations

import torch
from torch import Tensor

from dbksvd.synthetic.base import TensorModel, draw_directions, seed_generator
from dbksvd.synthetic.settings import ExpertMixtureSettings


class ExpertMixture(TensorModel[ExpertMixtureSettings]):
    """A component is drawn, then k of its features fire on top of the component's own feature.

    Features of component c are rows ``c (f + 1) … (c + 1)(f + 1) − 1``; the first of them is the
    component's own, a direction of its subspace like the others.
    """

    @classmethod
    def make(cls, settings: ExpertMixtureSettings, device: torch.device) -> ExpertMixture:
        """Draw an orthonormal basis for each component, and its features inside."""
        generator = seed_generator(settings.seed)
        features = []
        for _ in range(settings.num_components):
            shape = (settings.hidden_dim, settings.subspace_dim)
            square = torch.randn(shape, generator=generator, dtype=torch.float32)
            basis = torch.linalg.qr(square).Q
            inside = draw_directions(
                settings.features_per_component + 1, settings.subspace_dim, generator
            )
            features.append(torch.nn.functional.normalize(inside @ basis.T, dim=1))
        bias = settings.bias * draw_directions(1, settings.hidden_dim, generator)[0]
        tensors = {"features": torch.cat(features), "bias": bias}
        return cls(settings, {name: tensor.to(device) for name, tensor in tensors.items()})

    def draw_codes(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Draw codes and the component of each sample."""
        settings, device = self.settings, self.features.device
        width, k = settings.features_per_component, settings.k
        component = torch.randint(settings.num_components, (n,), device=device)
        chosen = torch.rand(n, width, device=device, dtype=torch.float32).topk(k, dim=1).indices
        mean, spread = settings.magnitude
        values = (mean + spread * torch.randn(n, k, device=device, dtype=torch.float32)).abs()
        first = component[:, None] * (width + 1)
        codes = torch.zeros(n, len(self.features), device=device, dtype=torch.float32)
        codes.scatter_(1, first + 1 + chosen, values)
        own = torch.full_like(values[:, :1], settings.component_magnitude)
        return codes.scatter_(1, first, own), component
