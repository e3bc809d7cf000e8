"""The randomised model: the same architecture, its weights drawn anew."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import nn

from dbksvd.models.settings import RandomiseSettings


@torch.no_grad()
def randomise_(model: Any, settings: RandomiseSettings) -> None:
    """Draw the weights of a model anew, in place.

    Each tensor is filled with independent normal numbers that have the mean and the variance of its
    entries, so that norms of activations stay of a similar size while all that was learned beyond
    these two numbers is gone. A tensor of one entry stays. Each has a generator of its own, from
    the seed and its name, so that equal settings give equal weights on every device and in every
    order of loading.

    Parameters
    ----------
    model : transformers model
        Of any kind; weights that two modules share stay shared.
    settings : RandomiseSettings
        Seed, and whether embeddings stay.

    References
    ----------
    Heap et al. (2025), "Sparse autoencoders can interpret randomly initialized transformers",
    arXiv:2501.17727.
    """
    kept = set()
    if settings.embeddings == "keep":
        tables = (module for module in model.modules() if isinstance(module, nn.Embedding))
        kept = {id(table.weight) for table in tables}
    for name, weight in model.named_parameters():
        if id(weight) in kept or weight.numel() < 2 or not weight.is_floating_point():
            continue
        values = weight.detach().double()
        generator = np.random.default_rng([settings.seed, crc32(name.encode())])
        drawn = generator.standard_normal(tuple(weight.shape), dtype=np.float32)
        scaled = float(values.mean()) + float(values.std(correction=0)) * torch.from_numpy(drawn)
        weight.copy_(scaled.to(weight))
