"""KronSAE: formulas by plain loops, exact selection, gradients by differences, training, saving."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sparse_sae_helpers import (
    draw_batches,
    make_step,
    make_trainer,
    make_training_sae,
    measure_gradient_error,
    measure_unexplained,
    train,
)

from dbksvd.dictionaries import kron_latents, sparse_sae
from dbksvd.dictionaries.kron import (
    COMBINATIONS,
    KronSAE,
    KronSAEConfig,
    KronTrainingSAE,
    KronTrainingSAEConfig,
)
from dbksvd.dictionaries.kron_latents import (
    SMALLEST_SLOPE_LATENT,
    combine_by_mand,
    select_among,
    select_latents,
)
from dbksvd.dictionaries.loading import load_dictionary

SIZES = {"d_in": 6, "d_sae": 30, "k": 4, "n_heads": 5, "base": 2, "extension": 3}


def draw(n: int, d: int = 6, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1), dtype=dtype) + 0.3


def make_sae(**changes) -> KronTrainingSAE:
    return make_training_sae("kron", **{**SIZES, "dtype": "float64", **changes})


def to_lists(sae) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in sae.state_dict().items()}


def find_latents(sae, x: np.ndarray) -> np.ndarray:
    """Return all F latents (n, F) before TopK, one number at a time."""
    w, cfg = to_lists(sae), sae.cfg
    b, e = cfg.base, cfg.extension
    shift = w["b_dec"] if cfg.apply_b_dec_to_input else 0 * w["b_dec"]
    latents = np.zeros((len(x), cfg.d_sae))
    for row, sample in enumerate(x):
        for g in range(cfg.n_heads):
            pre = [
                w["b_factors"][g, f]
                + sum(w["W_factors"][g, f, i] * (sample[i] - shift[i]) for i in range(cfg.d_in))
                for f in range(b + e)
            ]
            for i in range(b):
                for j in range(e):
                    u, v = pre[i], pre[b + j]
                    if cfg.combine == "raw":
                        z = max(u * v, 0.0)
                    else:
                        p, q = max(u, 0.0), max(v, 0.0)
                        z = p * q
                        if cfg.combine == "mand":
                            z = math.sqrt(p * q) if p > 0 and q > 0 else 0.0
                    latents[row, (g * b + i) * e + j] = z
    return latents


def keep_largest(latents: np.ndarray, k: int) -> np.ndarray:
    kept = np.zeros_like(latents)
    for row, values in enumerate(latents):
        for j in sorted(range(len(values)), key=lambda j: values[j], reverse=True)[:k]:
            kept[row, j] = values[j]
    return kept


@pytest.mark.parametrize("apply_b_dec", [True, False])
@pytest.mark.parametrize("combine", COMBINATIONS)
def test_encoder_and_decoder_follow_the_formulas(combine, apply_b_dec):
    sae, x = make_sae(combine=combine, apply_b_dec_to_input=apply_b_dec), draw(40)
    latents = keep_largest(find_latents(sae, x.numpy()), 4)
    np.testing.assert_allclose(sae.encode(x).detach().numpy(), latents, rtol=1e-10, atol=1e-13)
    assert ((latents > 0).sum(axis=1) <= 4).all()
    w = to_lists(sae)
    expected = latents @ w["W_dec"] + w["b_dec"]
    np.testing.assert_allclose(sae(x).detach().numpy(), expected, rtol=1e-10)
    output = sae.training_forward_pass(make_step(x))
    assert output.loss.item() == pytest.approx(((expected - x.numpy()) ** 2).sum() / 40)
    torch.testing.assert_close(output.feature_acts.to_dense(), torch.from_numpy(latents))


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_revival_loss_follows_the_formula(combine):
    sae, x = make_sae(combine=combine, aux_loss_coefficient=0.5), draw(40)
    dead = torch.zeros(30, dtype=torch.bool)
    dead[[1, 8, 20]] = True
    for count in (3, 5):
        dead[[15, 29]] = count == 5  # fewer, then more than d/2 = 3
        output = sae.training_forward_pass(make_step(x, dead))
        latents = find_latents(sae, x.numpy()) * dead.numpy()
        left = (x - output.sae_out).detach().numpy()
        recovered = keep_largest(latents, 3) @ to_lists(sae)["W_dec"]
        expected = 0.5 * ((recovered - left) ** 2).sum() / 40
        assert output.losses["auxiliary_reconstruction_loss"].item() == pytest.approx(expected)
    dead[:] = False
    dead[8] = True
    output = sae.training_forward_pass(make_step(x, dead))
    recovered = find_latents(sae, x.numpy())[:, [8]] * to_lists(sae)["W_dec"][8]
    expected = 0.5 * (1 / 3) * ((recovered - left) ** 2).sum() / 40
    assert output.losses["auxiliary_reconstruction_loss"].item() == pytest.approx(expected)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_gradients_by_finite_differences(combine):
    sae, x = make_sae(combine=combine), draw(15)
    values = sae.encode_sparse(x).values
    assert values[values > 0].min() > SMALLEST_SLOPE_LATENT  # where the slope is exact

    def compute_loss() -> torch.Tensor:
        return sae.training_forward_pass(make_step(x)).loss

    assert measure_gradient_error(compute_loss, list(sae.parameters())) < 1e-7


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_gradients_of_the_revival_loss(combine):
    sae, x = make_sae(combine=combine), draw(15)
    dead = torch.arange(30) % 3 == 0
    sae_out = sae(x).detach()

    def compute_loss() -> torch.Tensor:
        _, state = sae.encode_with_hidden_pre(x)
        losses = sae.calculate_aux_loss(make_step(x, dead), x, state, sae_out)
        return losses["auxiliary_reconstruction_loss"]

    assert measure_gradient_error(compute_loss, list(sae.parameters())) < 1e-7


def test_mand_is_zero_where_off_and_its_slope_is_bounded():
    p = torch.tensor([0.0, 0.0, -1.0, -2.0, 1e-30, 1e-12, 4.0], dtype=torch.float64)
    q = torch.tensor([0.0, 3.0, 2.0, -2.0, 1e-30, 1.0, 9.0], dtype=torch.float64)
    p.requires_grad_(True)
    q.requires_grad_(True)
    z = combine_by_mand(p, q)
    assert z[:4].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(z[4:], torch.tensor([1e-30, 1e-6, 6.0], dtype=torch.float64))
    z.sum().backward()
    bound = 0.5 / SMALLEST_SLOPE_LATENT
    for own, other in ((p, q), (q, p)):
        assert torch.isfinite(own.grad).all()
        assert not own.grad[:4].any()
        assert (own.grad <= bound * other.detach().clamp(min=0) + 1e-12).all()
    assert p.grad[5].item() == pytest.approx(bound)
    assert p.grad[6].item() == pytest.approx(9 / 12)
    a, b = (torch.rand(8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: combine_by_mand(a + 0.1, b + 0.1), (a, b))


def test_gradients_stay_finite_when_everything_is_off():
    sae, x = make_sae(), draw(15)
    with torch.no_grad():
        sae.b_factors.fill_(-100)
    output = sae.training_forward_pass(make_step(x, torch.ones(30, dtype=torch.bool)))
    assert not output.feature_acts.to_dense().any()
    output.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in sae.parameters())


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("heads", "base", "extension", "k"), [(1, 5, 7, 3), (40, 2, 3, 5), (9, 1, 1, 9), (3, 4, 2, 24)]
)
def test_selection_is_exact(heads, base, extension, k, signed, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(63, heads, base + extension, generator=generator, dtype=torch.float64)
    if not signed:
        factors = factors.relu()
    p, q = factors[..., :base], factors[..., base:]
    products = (p.unsqueeze(3) * q.unsqueeze(2)).flatten(1)
    expected = products.topk(k, dim=1).values.relu()
    for block in (1, 500, 1 << 24):
        monkeypatch.setattr(kron_latents, "BLOCK_ELEMENTS", block)
        chosen = select_latents(factors, base, k, signed=signed)
        assert chosen.shape == (63, k)
        torch.testing.assert_close(products.gather(1, chosen).relu(), expected)
        assert all(len(set(row)) == k for row in chosen.tolist())
        candidates = torch.randperm(products.shape[1], generator=generator)
        among = select_among(factors, base, candidates, k)
        torch.testing.assert_close(products.gather(1, among).relu(), expected)


def test_encoder_parameters():
    sae = KronTrainingSAE(KronTrainingSAEConfig(**SIZES))
    encoder = [sae.W_factors, sae.b_factors]
    assert sum(parameter.numel() for parameter in encoder) == 5 * (2 + 3) * (6 + 1)
    assert sum(parameter.numel() for parameter in sae.parameters()) == 5 * 5 * 7 + 30 * 6 + 6
    assert set(sae.state_dict()) == {"W_factors", "b_factors", "W_dec", "b_dec"}


def test_start():
    torch.manual_seed(0)
    sae = KronTrainingSAE(KronTrainingSAEConfig(64, 1024, n_heads=128, base=2, extension=4))
    spread = sae.W_factors.std().item() * (2 * 1024) ** 0.5
    assert spread == pytest.approx(1, rel=0.02)
    assert not sae.b_factors.any()
    head, i, j = 77, 1, 3
    row = sae.W_factors[head, i] + sae.W_factors[head, 2 + j]
    latent = (head * 2 + i) * 4 + j
    torch.testing.assert_close(sae.W_dec[latent], row / row.norm())
    torch.testing.assert_close(sae.W_enc[:, latent], row)
    assert sae.W_enc.shape == (64, 1024)


@pytest.mark.parametrize("n", [0, 1, 63])
@pytest.mark.parametrize("combine", COMBINATIONS)
def test_sparse_and_dense_agree(n, combine, monkeypatch):
    sae, x = make_sae(combine=combine), draw(n)
    codes = sae.encode_sparse(x)
    assert codes.indices.shape == codes.values.shape == (n, 4)
    assert torch.equal(codes.to_dense(), sae.encode(x))
    torch.testing.assert_close(sae.decode_sparse(codes), sae.decode(sae.encode(x)))
    used = codes.values > 0
    assert torch.equal(used.sort(dim=1, descending=True).values, used)  # used slots first
    assert not codes.indices[~used].any()
    assert sae.encode(x.reshape(n, 1, 6)).shape == (n, 1, 30)
    monkeypatch.setattr(sparse_sae, "ROWS_PER_BLOCK", 7)
    monkeypatch.setattr(kron_latents, "BLOCK_ELEMENTS", 1)
    torch.testing.assert_close(sae.encode_sparse(x).to_dense(), codes.to_dense())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 4}, r"expected a product of d_sae=30, got 4 · 2 · 3"),
        ({"base": 0}, "base: expected at least 1, got 0"),
        ({"k": 31}, "k: expected at most 30 latents to choose from, got 31"),
        ({"combine": "and"}, "combine: expected one of mand, product, raw, got 'and'"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations: expected one of none"),
    ],
)
@pytest.mark.parametrize("config", [KronSAEConfig, KronTrainingSAEConfig])
def test_bad_settings_are_named(config, changes, message):
    with pytest.raises(ValueError, match=message):
        config(**{**SIZES, **changes})


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("autocast", [False, True])
def test_training_learns_and_saves(combine, autocast, tmp_path):
    from sae_lens import SAE

    torch.manual_seed(0)
    config = KronTrainingSAEConfig(
        16,
        64,
        k=4,
        n_heads=16,
        base=2,
        extension=2,
        combine=combine,
        normalize_activations="expected_average_only_in",
    )
    sae = KronTrainingSAE(config)
    trainer = make_trainer(sae, autocast=autocast)
    losses = train(trainer)
    assert losses[-1]["mse_loss"] < 0.4 * losses[0]["mse_loss"]
    assert int(trainer.dead_neurons.sum()) <= (12 if combine == "mand" else 24)
    x = next(draw_batches(1000))
    scaled_latents = sae.encode(trainer.activation_scaler(x))
    unexplained = measure_unexplained(sae, trainer.activation_scaler(x))
    assert unexplained < 0.35

    factor = trainer.activation_scaler.scaling_factor
    sae.fold_activation_norm_scaling_factor(factor)
    sae.fold_W_dec_norm()
    assert measure_unexplained(sae, x) == pytest.approx(unexplained, rel=1e-4)
    torch.testing.assert_close(sae.encode(x), scaled_latents / factor, rtol=1e-4, atol=1e-4)
    sae.save_inference_model(tmp_path / "sae")
    again = SAE.load_from_disk(tmp_path / "sae")
    assert isinstance(again, KronSAE)
    assert again.cfg.combine == combine
    torch.testing.assert_close(again.encode(x), sae.encode(x), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(again(x), sae(x), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(again.W_enc, sae.W_enc)
    dictionary = load_dictionary(tmp_path / "sae")
    codes = dictionary.encode(x)
    assert codes.indices.shape == (1000, 4)
    torch.testing.assert_close(codes.to_dense(), again.encode(x), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        dictionary.decode(codes), codes.decode(dictionary.atoms) + dictionary.bias
    )


def test_revival_loss_keeps_latents_alive():
    dead = []
    for coefficient in (0.0, 1.0):
        torch.manual_seed(0)
        config = KronTrainingSAEConfig(
            16, 64, k=4, n_heads=16, base=2, extension=2, aux_loss_coefficient=coefficient
        )
        trainer = make_trainer(KronTrainingSAE(config))
        train(trainer)
        dead.append(int(trainer.dead_neurons.sum()))
    assert dead[1] < dead[0] / 2


def test_state_dict_is_the_whole_state(tmp_path):
    from sae_lens.saes.sae import TrainingSAE

    torch.manual_seed(0)
    settings = {"k": 4, "n_heads": 16, "base": 2, "extension": 2}
    saes = [KronTrainingSAE(KronTrainingSAEConfig(16, 64, **settings)) for _ in range(2)]
    first, second = (make_trainer(sae, steps=60) for sae in saes)
    train(first)
    saes[1].load_state_dict(saes[0].state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.lr_scheduler.load_state_dict(first.lr_scheduler.state_dict())
    second.n_forward_passes_since_fired.copy_(first.n_forward_passes_since_fired)
    batch = next(draw_batches(256, seed=7))
    assert torch.equal(first.step(batch).loss, second.step(batch).loss)
    for name, value in saes[0].state_dict().items():
        assert torch.equal(value, saes[1].state_dict()[name]), name
    saes[0].save_model(tmp_path / "checkpoint")
    again = TrainingSAE.load_from_disk(tmp_path / "checkpoint")
    assert type(again) is type(saes[0])
    assert again.cfg.to_dict() == saes[0].cfg.to_dict()
    assert torch.equal(again.encode(batch), saes[0].encode(batch))
