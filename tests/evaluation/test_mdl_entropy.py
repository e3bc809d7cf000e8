"""mdl's description length against SAEBench's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from dbksvd.evaluation.saebench.shims import causal
from dbksvd.evaluation.saebench.shims.mdl_entropy import count_once, measure_length


@pytest.mark.parametrize("n_bins", [3, 8])
def test_the_length_is_that_of_saebench(n_bins, monkeypatch):
    monkeypatch.setenv("JAXTYPING_DISABLE", "1")
    causal.stand_in_for_loguru()
    from sae_bench.evals.mdl import main as module

    draw = torch.Generator().manual_seed(0)
    latents = torch.rand(200, 12, generator=draw) * 90
    latents[torch.rand(200, 12, generator=draw) < 0.8] = 0
    latents[:, 3] = 0  # never active
    latents[:, 4] += 1  # always active
    latents[:, 5] = 100.0  # all in one bin
    bins = module.build_bins(torch.zeros(12), torch.full((12,), 100.0), num_bins=n_bins)
    store = SimpleNamespace(get_filtered_llm_batch=lambda: torch.zeros(100, 4))
    sae = SimpleNamespace(encode=lambda _x: latents[:, None])

    asked = {
        "num_features": 12,
        "bins_F_list_Bi": bins,
        "device": "cpu",
        "activations_store": store,
        "sae": sae,
        "k": None,
    }
    config = SimpleNamespace(sae_batch_size=2)
    with causal.share_config(module, config), causal.allow_no_cuda("cpu"):
        own = module.calculate_dl(**asked)
        with count_once(module):
            once = module.calculate_dl(**asked)
    assert own > 5
    assert once == pytest.approx(own, rel=1e-5)
    assert measure_length(latents, bins) == once
