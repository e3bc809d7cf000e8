"""One SAE with tied weights, in training and as it is saved."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dbksvd.fit.savable import write_sae
from dbksvd.fit.task import FitTask


class TiedSAE:
    """Tied weights and a bias, with an optimizer of their own.

    Parameters
    ----------
    n_atoms, width : int
        Atoms and their width.
    seed : int
        Of the orthogonal start.
    lr : float
        Learning rate of Adam; the loop moves it.
    device : torch.device
        Where to compute.
    """

    def __init__(
        self, n_atoms: int, width: int, seed: int, lr: float, device: torch.device
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        first = torch.empty(n_atoms, width, dtype=torch.float32)
        torch.nn.init.orthogonal_(first, generator=generator)
        self.weight = first.to(device).requires_grad_()
        self.bias = torch.zeros(n_atoms, device=device, dtype=torch.float32, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.weight, self.bias], lr=lr)

    def encode(self, x: Tensor, k: int) -> Tensor:
        """Return dense latents (n, m): the k largest products of a sample, whatever their sign."""
        found = torch.topk(x @ self.weight.T + self.bias, k, dim=1)
        return (
            torch.zeros_like(x[:, :1])
            .expand(-1, len(self.weight))
            .scatter(1, found.indices, found.values)
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Return reconstructions (n, d)."""
        return latents @ normalize(self.weight, dim=1)


class SavableSAE:
    """The first SAE in SAELens's architecture ``topk``, for samples in their own unit.

    Parameters
    ----------
    trained : TiedSAE
        Trained on (samples - mean) * scale.
    mean : tensor of shape (d,)
        What was subtracted.
    scale : float
        What the rest was multiplied with.
    task : FitTask
        Says sizes and where the samples come from.
    """

    def __init__(self, trained: TiedSAE, mean: Tensor, scale: float, task: FitTask) -> None:
        self.trained, self.mean, self.scale, self.task = trained, mean, scale, task

    def save(self, path: str | Path) -> None:
        """Write ``cfg.json`` and safetensors with SAELens's own call."""
        from sae_lens.saes.sae import SAEMetadata
        from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

        task, trained = self.task, self.trained
        config = TopKSAEConfig(
            d_in=task.train.width,
            d_sae=task.n_atoms,
            k=task.k,
            metadata=SAEMetadata(**task.metadata),
        )
        with torch.random.fork_rng([]):  # weights are drawn before they are replaced
            sae = TopKSAE(config)
        with torch.no_grad():
            sae.W_enc.copy_(trained.weight.T)
            sae.b_enc.copy_(trained.bias / self.scale)
            sae.W_dec.copy_(normalize(trained.weight, dim=1))
            sae.b_dec.copy_(self.mean)
        write_sae(sae.save_model, path)
