"""Texts of pooled evals, read in order of length: the same activations from fewer tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dbksvd.evaluation.saebench.model import SAEBenchModel, name_hook
from dbksvd.evaluation.saebench.shims import common
from dbksvd.models.loading import load_model


@pytest.mark.parametrize("kind", ["tiny_causal", "tiny_encoder"])
def test_activations_are_those_of_padded_texts(kind, request, make_sentences, monkeypatch):
    from sae_bench.sae_bench_utils import activation_collection

    loaded = load_model({"name": str(request.getfixturevalue(kind)), "device": "cpu"})
    if loaded.tokenizer.pad_token is None:
        loaded.tokenizer.pad_token = "[PAD]"
    model = SAEBenchModel(loaded, "tiny")
    tokens = model.to_tokens(make_sentences(21, seed=4))
    read: list[int] = []

    def collect(
        rows: torch.Tensor, driven: Any, batch_size: int, layer: int, hook: str, mask: bool = False
    ) -> torch.Tensor:
        assert (driven, mask) == (model, True)
        found = []
        for part in rows.split(batch_size):
            read.append(part.numel())
            outputs: list[torch.Tensor] = []
            driven.run_with_hooks(
                part,
                stop_at_layer=layer + 1,
                fwd_hooks=[(hook, lambda out, outputs=outputs, **_: outputs.append(out))],
            )
            found.append(outputs[0] * driven.mask_text(part)[:, :, None])
        return torch.cat(found)

    monkeypatch.setattr(activation_collection, "get_llm_activations", collect)
    asked = (tokens, model, 4, 1, name_hook(2), True)
    padded = activation_collection.get_llm_activations(*asked)
    assert sum(read) == tokens.numel()
    read.clear()
    with common.read_in_order_of_length(model):
        sorted_by_length = activation_collection.get_llm_activations(*asked)
    torch.testing.assert_close(sorted_by_length, padded, rtol=1e-5, atol=1e-6)
    assert padded.abs().max() > 0.05
    assert (tokens != model.tokenizer.pad_token_id).sum() <= sum(read) < 0.9 * tokens.numel()
    assert activation_collection.get_llm_activations is collect
