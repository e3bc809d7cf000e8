"""Llama Scope's recipe: what latents are kept, the loss, k and norms in training, the threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sae_lens.saes.sae import TrainStepInput

from dbksvd.base.settings import parse
from dbksvd.dictionaries.llama_scope import LlamaScopeTrainingSAE, LlamaScopeTrainingSAEConfig
from dbksvd.fit.sae.configure import complete_settings, configure_architecture
from dbksvd.fit.sae.measure import make_inference_form
from dbksvd.fit.sae.method import METHOD

D, M, K, N = 8, 20, 3, 50


@pytest.fixture
def sae() -> LlamaScopeTrainingSAE:
    torch.manual_seed(0)
    made = LlamaScopeTrainingSAE(
        LlamaScopeTrainingSAEConfig(d_in=D, d_sae=M, k=K, k_anneal_steps=10)
    )
    with torch.no_grad():
        made.W_dec.mul_(0.2 + 2 * torch.rand(M, 1))
        made.W_enc.copy_(torch.randn(D, M))
        made.b_enc.copy_(0.3 * torch.randn(M))
        made.b_dec.copy_(torch.randn(D))
    return made


def step(sae: LlamaScopeTrainingSAE, x: torch.Tensor, number: int = 10):
    return sae.training_forward_pass(
        TrainStepInput(
            sae_in=x,
            dead_neuron_mask=torch.ones(M, dtype=torch.bool),
            coefficients={},
            n_training_steps=number,
            is_logging_step=False,
        )
    )


def test_a_step_is_the_papers_in_float64(sae):
    x = 1 + torch.randn(N, D)
    output = step(sae, x)
    w_dec = sae.W_dec.detach().double().numpy()
    norms = np.linalg.norm(w_dec, axis=1)
    assert norms.max() == pytest.approx(0.5)
    assert norms.min() < 0.45  # shorter rows stay
    # the bias of the decoder is no input of the encoder
    z = np.maximum(
        x.double().numpy() @ sae.W_enc.detach().double().numpy()
        + sae.b_enc.detach().double().numpy(),
        0,
    )
    order = np.argsort(-(z * norms), axis=1)
    np.put_along_axis(z, order[:, K:], 0, axis=1)
    found = z @ w_dec + sae.b_dec.detach().double().numpy()
    np.testing.assert_allclose(output.sae_out.detach(), found, atol=1e-5)
    rows = x.double().numpy()
    distances = np.linalg.norm(rows - rows.mean(axis=0), axis=1)
    loss = (((found - rows) ** 2).sum(axis=1) / distances).mean()
    assert float(output.loss.detach()) == pytest.approx(loss, rel=1e-5)
    assert list(output.losses) == ["mse_loss"]


def test_k_falls_from_half_the_width_to_its_value(sae):
    x = torch.randn(N, D)
    assert [sae.count_active(number) for number in (0, 5, 10, 99)] == [4, 4, 3, 3]
    assert int((step(sae, x, 0).feature_acts != 0).sum(dim=1).max()) == 4
    assert int((step(sae, x, 10).feature_acts != 0).sum(dim=1).max()) == 3


def test_one_threshold_keeps_as_many_latents_as_topk(sae):
    x = 1 + torch.randn(3000, D)  # more than one block
    sae.cut_norms_()
    sae.set_threshold_(x)
    products = (x @ sae.W_enc + sae.b_enc).detach() * sae.W_dec.detach().norm(dim=1)
    first, second = products.flatten().sort(descending=True).values[3000 * K - 1 :][:2]
    assert float(second) <= float(sae.threshold) <= float(first)
    twin = make_inference_form(sae)
    assert twin.cfg.architecture() == "jumprelu"
    assert twin.threshold.unique().numel() == 1
    assert int((twin.encode(x) != 0).sum()) == pytest.approx(3000 * K, abs=1)
    torch.testing.assert_close(twin.W_dec.norm(dim=1), torch.ones(M))


def test_a_folded_scale_changes_nothing(sae):
    x = 5 * torch.randn(200, D)
    sae.cut_norms_()
    sae.set_threshold_(x * 0.25)
    before = make_inference_form(sae)
    found = before.decode(before.encode(x * 0.25)) / 0.25
    sae.fold_activation_norm_scaling_factor(0.25)
    after = make_inference_form(sae)
    torch.testing.assert_close(after.decode(after.encode(x)), found, rtol=1e-4, atol=1e-4)


def test_settings_are_the_authors():
    given = parse(METHOD.settings, {"architecture": "llama_scope", "training_samples": 800_000_000})
    assert (given.lr, given.batch_size, given.betas, given.clip) == (
        8e-4,
        2048,
        (0.9, 0.9999),
        1e-3,
    )
    steps = 800_000_000 // 2048
    assert round(given.lr_warm_up * steps) == pytest.approx(5000, abs=1)
    own = configure_architecture(complete_settings(given, M, K, 1000), M, K)
    assert own["k_anneal_steps"] == round(0.1 * steps)
    assert own["decoder_init_norm"] == own["largest_norm"] == 0.5
    assert own["k"] == K
    with pytest.raises(ValueError, match="centre"):
        parse(METHOD.settings, {"architecture": "llama_scope", "centre": True})
