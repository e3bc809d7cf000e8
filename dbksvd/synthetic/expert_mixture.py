"""A mixture whose components have subspaces and features of their own, for routers to find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dbksvd.base.old_settings import build_settings, check_at_least
from dbksvd.synthetic.base import TensorModel, draw_directions, seed_generator


@dataclass(frozen=True)
class MixtureSettings:
    """How the toy is made.

    Parameters
    ----------
    num_components : int
        Components, equally likely.
    features_per_component : int
        Features of a component, beside the one that says which component it is.
    hidden_dim, subspace_dim : int
        Coordinates of the activations, and of the subspace that holds a component's features.
    k : int
        Features of the component that fire on a sample, each set equally likely.
    magnitude : list of two floats
        Mean and standard deviation of a firing feature's value, folded to be positive.
    component_magnitude : float
        Value of the component's own feature, which fires on all its samples.
    bias : float
        Norm of the bias.
    seed : int
        Decides subspaces and features.
    """

    num_components: int
    features_per_component: int
    hidden_dim: int
    subspace_dim: int
    k: int
    magnitude: list[float]
    component_magnitude: float
    bias: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        where = "activations.synthetic"
        counts = {"num_components": self.num_components, "k": self.k}
        check_at_least(1, where, subspace_dim=self.subspace_dim, **counts)
        check_at_least(self.k, where, features_per_component=self.features_per_component)
        check_at_least(self.subspace_dim, where, hidden_dim=self.hidden_dim)


class ExpertMixture(TensorModel):
    """A component is drawn, then k of its features fire on top of the component's own feature.

    Features of component c are rows ``c (f + 1) … (c + 1)(f + 1) − 1``; the first of them is the
    component's own, a direction of its subspace like the others.
    """

    @classmethod
    def make(cls, settings: Mapping[str, Any], device: torch.device) -> ExpertMixture:
        """Draw an orthonormal basis for each component, and its features inside."""
        checked = build_settings(MixtureSettings, settings, "activations.synthetic")
        generator = seed_generator(checked.seed)
        features = []
        for _ in range(checked.num_components):
            square = torch.randn(checked.hidden_dim, checked.subspace_dim, generator=generator)
            basis = torch.linalg.qr(square).Q
            inside = draw_directions(
                checked.features_per_component + 1, checked.subspace_dim, generator
            )
            features.append(torch.nn.functional.normalize(inside @ basis.T, dim=1))
        bias = checked.bias * draw_directions(1, checked.hidden_dim, generator)[0]
        tensors = {"features": torch.cat(features), "bias": bias}
        return cls(settings, {name: tensor.to(device) for name, tensor in tensors.items()})

    def draw_codes(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Draw codes and the component of each sample."""
        settings, device = self.settings, self.features.device
        width, k = settings["features_per_component"], settings["k"]
        component = torch.randint(settings["num_components"], (n,), device=device)
        chosen = torch.rand(n, width, device=device).topk(k, dim=1).indices
        mean, spread = settings["magnitude"]
        values = (mean + spread * torch.randn(n, k, device=device)).abs()
        first = component[:, None] * (width + 1)
        codes = torch.zeros(n, len(self.features), device=device)
        codes.scatter_(1, first + 1 + chosen, values)
        own = torch.full_like(values[:, :1], settings["component_magnitude"])
        return codes.scatter_(1, first, own), component
