"""Positions over the norm limit of the fit, which no dictionary has seen: evals leave them as is.

SAEBench knows special tokens only; attention sinks may be words, periods or line breaks too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor


def find_over(activations: Tensor, norm_limit: float | None) -> Tensor:
    """Return which activations (..., d) are over the limit, bool of shape (...); None: no one."""
    if norm_limit is None:
        return torch.zeros(activations.shape[:-1], dtype=torch.bool, device=activations.device)
    return torch.linalg.vector_norm(activations, dim=-1, dtype=torch.float64) > norm_limit


@contextmanager
def zero_over(norm_limit: float | None) -> Iterator[None]:
    """Let SAEBench's pooled evals zero positions over the limit as they zero special tokens.

    Zeroed positions count in no mean, of raw activations and of codes alike.
    """
    from sae_bench.sae_bench_utils import activation_collection

    collect = activation_collection.get_llm_activations

    def collect_zeroed(*args: Any, **kwargs: Any) -> Tensor:
        activations: Tensor = collect(*args, **kwargs)
        activations[find_over(activations, norm_limit)] = 0
        return activations

    if norm_limit is None:
        yield
        return
    with patch.object(activation_collection, "get_llm_activations", collect_zeroed):
        yield


@contextmanager
def mask_recorded(record: Mapping[str, Tensor]) -> Iterator[None]:
    """Let autointerp mask what the record leaves out: by itself it masks special tokens only."""
    from sae_bench.sae_bench_utils import activation_collection

    places = {tuple(row): place for place, row in enumerate(record["ids"].tolist())}

    def get_mask(tokens: Tensor, _tokenizer: Any) -> Tensor:
        return record["text"][[places[tuple(row)] for row in tokens.tolist()]]

    with patch.object(activation_collection, "get_bos_pad_eos_mask", get_mask):
        yield


@contextmanager
def silence_over(sae: Any, norm_limit: float | None) -> Iterator[None]:
    """Give activations over the limit codes of zero, inside the block."""
    encode = sae.encode

    def encode_under(x: Tensor) -> Tensor:
        latents: Tensor = encode(x)
        return latents.masked_fill(find_over(x, norm_limit)[..., None], 0)

    if norm_limit is None:
        yield
        return
    sae.encode = encode_under  # shadows the method; functions are not nn.Module state
    try:
        yield
    finally:
        del sae.encode


@contextmanager
def keep_over(norm_limit: float | None) -> Iterator[None]:
    """Let ravel change nothing where the entity, or that of the source, is over the limit."""
    from sae_bench.evals.ravel.mdbm import MDBM

    create = MDBM.create_intervention_hook

    def create_keeping(
        self: Any, source: Tensor, positions: Tensor, *args: Any, **kwargs: Any
    ) -> Callable[..., Any]:
        intervene = create(self, source, positions, *args, **kwargs)
        source_over = find_over(source, norm_limit)

        def run(module: Any, inputs: Any, outputs: Any) -> Any:
            residual = outputs[0]
            if residual.shape[1] == 1:  # generating with a cache: nothing is changed
                return intervene(module, inputs, outputs)
            rows = torch.arange(len(residual), device=residual.device)
            before = residual[rows, positions].detach().clone()
            changed, *rest = intervene(module, inputs, outputs)
            keep = (source_over | find_over(before, norm_limit))[:, None]
            changed[rows, positions] = torch.where(keep, before, changed[rows, positions])
            return (changed, *rest)

        return run

    if norm_limit is None:
        yield
        return
    with patch.object(MDBM, "create_intervention_hook", create_keeping):
        yield
