"""Adam's moments in checkpoints: tensors by name, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def dump_moments(optimizer: torch.optim.Optimizer, prefix: str = "adam.") -> dict[str, Tensor]:
    """Return the state of each weight, as ``<prefix><number of the weight>.<name>``."""
    return {
        f"{prefix}{number}.{name}": each
        for number, state in optimizer.state_dict()["state"].items()
        for name, each in state.items()
    }


def take_moments(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str = "adam."
) -> dict[str, Any]:
    """Return the state of an optimizer with the moments of :func:`dump_moments` in it.

    Parameters
    ----------
    optimizer : Optimizer
        Of the same weights; it is left as it is, for the caller to load the state.
    tensors : mapping of str to Tensor
        Those of a checkpoint; names without the prefix are passed over.
    prefix : str
        As they were written.
    """
    told = optimizer.state_dict()
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            number, key = name.removeprefix(prefix).split(".", 1)
            told["state"].setdefault(int(number), {})[key] = tensor
    return told
