"""SynthSAEBench: SAELens's synthetic model with hierarchy, correlation and superposition."""

from __future__ import annotations

from pathlib import Path

import torch
from sae_lens.synthetic import SyntheticModel, SyntheticModelConfig
from torch import Tensor

from dbksvd.synthetic.base import GenerativeModel
from dbksvd.synthetic.settings import SynthSAEBenchSettings


class SynthSAEBench(GenerativeModel[SynthSAEBenchSettings]):
    """SAELens's own `SyntheticModel`; its settings keep SAELens's names.

    The vectors are drawn on the device the model is made on: CPU and CUDA make different models
    of the same seed. That is why the model is made once and kept.

    Parameters
    ----------
    model : sae_lens.synthetic.SyntheticModel
        The model.

    References
    ----------
    Chanin et al. (2026), "SynthSAEBench", arXiv:2602.14687.
    """

    def __init__(self, model: SyntheticModel) -> None:
        self.model = model
        self.features = model.feature_dict.feature_vectors.detach()
        self.bias = model.feature_dict.bias.detach()

    @classmethod
    def make(cls, settings: SynthSAEBenchSettings, device: torch.device) -> SynthSAEBench:
        """Build it; ``orthogonalization.num_steps`` gradient steps take nearly all the time."""
        own = settings.describe_model()
        del own["kind"]
        return cls(SyntheticModel(SyntheticModelConfig.from_dict(own), device=str(device)))

    @classmethod
    def load(
        cls, folder: Path, _settings: SynthSAEBenchSettings, device: torch.device
    ) -> SynthSAEBench:
        """Read SAELens's files."""
        return cls(SyntheticModel.load_from_disk(folder, device=str(device)))

    def save(self, folder: Path) -> None:
        """Write SAELens's files: configuration, weights, hierarchy."""
        self.model.save(folder)

    def draw_codes(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Draw feature activations; no sample belongs to a component."""
        return self.model.activation_generator.sample(n), None
