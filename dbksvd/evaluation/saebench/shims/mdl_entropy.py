"""SAEBench's description length, with what it computes anew for each latent computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor


def measure_length(latents: Tensor, edges: Sequence[Tensor]) -> float:
    """Return the bits per sample of quantised latents, as SAEBench's ``calculate_dl`` counts them.

    Σⱼ [H(pⱼ) + pⱼ H(bins of zⱼ)], with pⱼ the share of samples where latent j is active; zeros
    count in the bins.

    Parameters
    ----------
    latents : floating tensor of shape (n, m)
        Latents of the samples.
    edges : sequence of m tensors of shape (bins + 1,)
        Edges of each latent's bins.
    """
    active = (latents > 0).float().mean(dim=0)
    columns = latents.float().T.contiguous().cpu()
    counts = torch.stack(
        [
            torch.histogram(column, bins=bins.cpu()).hist
            for column, bins in zip(columns, edges, strict=True)
        ]
    ).to(latents.device)
    shares = counts / counts.sum(dim=1, keepdim=True)
    binned = -torch.xlogy(shares, shares).sum(dim=1) / torch.log(torch.tensor(2.0))
    switch = -(torch.xlogy(active, active) + torch.xlogy(1 - active, 1 - active))
    bits = switch / torch.log(torch.tensor(2.0)) + active * binned.nan_to_num()
    return float(bits.sum())


@contextmanager
def count_once(module: ModuleType) -> Iterator[None]:
    """Let mdl count how often latents are active once: it counts all of them for each of them."""
    read: Callable[[Any, int], Tensor] = module._get_filtered_buffer

    def calculate_dl(*, bins_F_list_Bi: Any, activations_store: Any, sae: Any, **_: Any) -> float:
        rows = read(activations_store, module.config.sae_batch_size)
        return measure_length(sae.encode(rows[:, None]).squeeze(1), bins_F_list_Bi)

    with patch.object(module, "calculate_dl", calculate_dl):
        yield
