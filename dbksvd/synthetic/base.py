"""What every generative model offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dbksvd.synthetic.settings import GenerativeSettings

Made = TypeVar("Made", bound=GenerativeSettings)

WEIGHTS_FILE = "synthetic_model.safetensors"  # SAELens's own name


class GenerativeModel(ABC, Generic[Made]):
    """Sparse non-negative codes over known features make activations: ``x = z F + b``.

    Attributes
    ----------
    features : float32 tensor of shape (n_features, d)
        F: unit rows.
    bias : float32 tensor of shape (d,)
        b.
    """

    features: Tensor
    bias: Tensor

    @classmethod
    @abstractmethod
    def make(cls, settings: Made, device: torch.device) -> GenerativeModel[Made]:
        """Build the model from its section of the config; equal settings, equal model."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, settings: Made, device: torch.device) -> GenerativeModel[Made]:
        """Read what :meth:`save` wrote."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model as JSON and safetensors, the latter named `WEIGHTS_FILE`."""

    @abstractmethod
    def draw_codes(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Draw from torch's global generator.

        Returns
        -------
        codes : float32 tensor of shape (n, n_features)
            Dense, ≥ 0.
        component : int64 tensor of shape (n,), or None
            Which part of a mixture made each sample.
        """

    def embed(self, codes: Tensor) -> Tensor:
        """Return the activations (n, d) of dense codes (n, n_features)."""
        return codes @ self.features + self.bias

    @property
    def covariance(self) -> Tensor | None:
        """Covariance of the latent Gaussian behind the codes, where the model is made of one."""
        return None


class TensorModel(GenerativeModel[Made]):
    """A model that is its settings and a few tensors, ``features`` and ``bias`` among them.

    Parameters
    ----------
    settings : GenerativeSettings
        Those of its kind.
    tensors : dict of str to Tensor
        What the model is made of; each becomes an attribute.
    """

    def __init__(self, settings: Made, tensors: dict[str, Tensor]) -> None:
        self.settings = settings
        self._tensors = tensors
        self.features, self.bias = tensors["features"], tensors["bias"]

    def save(self, folder: Path) -> None:
        """Write the tensors; the settings are in the manifest."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self._tensors.items()}
        save_file(tensors, folder / WEIGHTS_FILE)

    @classmethod
    def load(cls, folder: Path, settings: Made, device: torch.device) -> TensorModel[Made]:
        """Read the tensors."""
        return cls(settings, load_file(folder / WEIGHTS_FILE, device=str(device)))


def seed_generator(*numbers: int) -> torch.Generator:
    """Return a CPU generator for these numbers that no ``manual_seed`` of a small number meets.

    Equal seeds draw equal numbers: a random dictionary of seed 0 would else be the true features.
    """
    return torch.Generator().manual_seed(mix_seed(*numbers))


def mix_seed(*numbers: int) -> int:
    """Return 64 bits mixed from numbers ≥ 0; different numbers, unrelated bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def draw_directions(n: int, width: int, generator: torch.Generator) -> Tensor:
    """Return `n` isotropic unit vectors, float32 of shape (n, width)."""
    vectors = torch.randn(n, width, generator=generator, dtype=torch.float32)
    return torch.nn.functional.normalize(vectors, dim=1)
