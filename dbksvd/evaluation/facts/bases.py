"""The bases in which two activations are mixed: neurons, a learned rotation, a dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sae_lens import SAE


class Neurons(nn.Module):
    """The activations' own coordinates.

    Parameters
    ----------
    width : int
        Width d of the activations.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, base: Tensor, source: Tensor, share: Tensor) -> Tensor:
        """Return activations (n, d) that take a share (d,) of each coordinate from the source."""
        return base + share * (source - base)


class Rotation(nn.Module):
    """Coordinates behind an orthogonal matrix that is learned (distributed alignment search).

    It begins as the identity, which are the neurons, and stays orthogonal as the Cayley transform
    of a skew matrix (Geiger et al. 2024; the start is SAEBench's).

    Parameters
    ----------
    width : int
        Width d of the activations.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.skew = nn.Parameter(torch.zeros(width, width))

    def forward(self, base: Tensor, source: Tensor, share: Tensor) -> Tensor:
        """Return activations (n, d) that take a share (d,) of each new coordinate."""
        rotation = self.rotate()
        return base + (share * ((source - base) @ rotation.T)) @ rotation

    def rotate(self) -> Tensor:
        """Return the orthogonal matrix (d, d), its rows the new coordinates' directions."""
        skew = self.skew.triu(1)
        skew = skew - skew.T
        identity = torch.eye(self.width, dtype=skew.dtype, device=skew.device)
        rotation: Tensor = torch.linalg.solve(identity + skew, identity - skew)
        return rotation


class Coded(nn.Module):
    """The latents of a dictionary: activations become what it decodes.

    Parameters
    ----------
    sae : sae_lens.SAE
        The dictionary, whose weights are not trained.
    """

    def __init__(self, sae: SAE[Any]) -> None:
        super().__init__()
        self.width = sae.cfg.d_sae
        self._sae = (sae.requires_grad_(False),)  # no submodule: it has no weights to train

    def forward(self, base: Tensor, source: Tensor, share: Tensor) -> Tensor:
        """Return decoded activations (n, d) that take a share (m,) of each latent."""
        sae = self._sae[0]
        with torch.no_grad():  # the base last: some SAEs decode to the scale of what they coded
            given, own = sae.encode(source).float(), sae.encode(base).float()
        decoded: Tensor = sae.decode((own + share * (given - own)).to(sae.dtype))
        return decoded.float()
