"""What an atom writes: its direct effect on the logits of a causal model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LISTED = 10
BINS = 50
BLOCK_BYTES = 2**26


def find_unembedding(model: Any) -> tuple[Tensor, Tensor | None] | None:
    """Return a causal model's unembedding (V, d) and the weight (d,) of its final norm.

    None where the model has no unembedding of the width of its activations. The norm is the last
    module with a weight of shape (d,) outside the blocks; its mean and scale depend on the sample
    and are left out, so that effects are right up to a factor that all tokens share.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        return None
    return weight.detach(), _find_final_norm(model, weight.shape[1])


def _find_final_norm(model: nn.Module, width: int) -> Tensor | None:
    """Return what the last norm outside the blocks multiplies by, however it stores that."""
    n_layers = getattr(getattr(model, "config", None), "num_hidden_layers", -1)
    blocks = tuple(
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    )
    norms = [
        module
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        and not any(name.startswith(block) for block in blocks)
        and tuple(getattr(getattr(module, "weight", None), "shape", ())) == (width,)
    ]
    if not norms:
        return None
    weight: Any = norms[-1].weight
    # Of mean 0 and norm √d, so that the norm changes nothing but weight and bias: some norms
    # multiply by their weight, others by 1 + weight.
    probe = torch.ones_like(weight)
    probe[1::2] = -1
    with torch.no_grad():
        return ((norms[-1](probe) - norms[-1](-probe)) / (2 * probe)).float()


def measure_logits(
    atoms: Tensor, unembedding: Tensor, norm_weight: Tensor | None = None, listed: int = LISTED
) -> dict[str, np.ndarray]:
    """Return the tokens whose logits each atom raises and lowers most: ``W_U (w ⊙ atom)``.

    Parameters
    ----------
    atoms : tensor of shape (m, d)
        Atoms.
    unembedding : tensor of shape (V, d)
        Rows of the tokens.
    norm_weight : tensor of shape (d,), optional
        Weight of the final norm.
    listed : int
        Tokens of each end.

    Returns
    -------
    dict
        ``logit_token`` and ``logit_value`` (m, 2 · listed): the most raised by falling effect,
        then the most lowered by rising effect; ``logit_histogram_count`` (m, 50) and
        ``logit_histogram_edges`` (m, 2), equal bins from the least to the largest effect.
    """
    written = atoms.float() if norm_weight is None else atoms.float() * norm_weight.float().cpu()
    rows = unembedding.float().cpu()
    listed = min(listed, len(rows))
    tokens = np.empty((len(atoms), 2 * listed), np.int32)
    values = np.empty(tokens.shape, np.float32)
    counts = np.zeros((len(atoms), BINS), np.int64)
    edges = np.zeros((len(atoms), 2), np.float32)
    step = max(1, BLOCK_BYTES // (4 * len(rows)))
    for start in range(0, len(atoms), step):
        effects = written[start : start + step] @ rows.T
        ends = [effects.topk(listed, dim=1, largest=largest) for largest in (True, False)]
        block = slice(start, start + len(effects))
        tokens[block] = torch.cat([end.indices for end in ends], dim=1).numpy()
        values[block] = torch.cat([end.values for end in ends], dim=1).numpy()
        for row, effect in enumerate(effects.numpy(), start):
            counts[row], borders = np.histogram(effect, BINS)
            edges[row] = borders[[0, -1]]
    return {
        "logit_token": tokens,
        "logit_value": values,
        "logit_histogram_count": counts,
        "logit_histogram_edges": edges,
    }
