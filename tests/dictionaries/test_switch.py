"""Switch SAE: formulas by plain loops, gradients by differences, training, saving, duplicates."""

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

from dbksvd.dictionaries import sparse_sae
from dbksvd.dictionaries.geometric_median import find_geometric_median
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.dictionaries.switch import (
    SwitchSAEConfig,
    SwitchTrainingSAE,
    SwitchTrainingSAEConfig,
)
from dbksvd.evaluation.expert_duplicates import measure_expert_duplicates

SIZES = {"d_in": 6, "d_sae": 15, "k": 2, "n_experts": 3}


def draw(n: int, d: int = 6, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1), dtype=dtype) + 0.3


def make_sae(**changes) -> SwitchTrainingSAE:
    return make_training_sae("switch", **{**SIZES, "dtype": "float64", **changes})


def to_lists(sae) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in sae.state_dict().items()}


def encode_by_loops(sae, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return latents (n, m), probabilities (n, E) and experts, one number at a time."""
    w, cfg = to_lists(sae), sae.cfg
    width = cfg.d_sae // cfg.n_experts
    latents = np.zeros((len(x), cfg.d_sae))
    probabilities = np.zeros((len(x), cfg.n_experts))
    experts = []
    for row, sample in enumerate(x):
        logits = [
            sum((sample[i] - w["b_router"][i]) * w["W_router"][i, e] for i in range(cfg.d_in))
            for e in range(cfg.n_experts)
        ]
        weights = [math.exp(logit) for logit in logits]
        probabilities[row] = [weight / sum(weights) for weight in weights]
        expert = max(range(cfg.n_experts), key=lambda e: logits[e])
        experts.append(expert)
        pre = {
            j: max(
                0.0, sum((sample[i] - w["b_dec"][i]) * w["W_enc"][i, j] for i in range(cfg.d_in))
            )
            for j in range(expert * width, (expert + 1) * width)
        }
        for j in sorted(pre, key=lambda j: pre[j], reverse=True)[: cfg.k]:
            latents[row, j] = probabilities[row, expert] * pre[j]
    return latents, probabilities, experts


def test_encoder_and_decoder_follow_the_formulas():
    sae, x = make_sae(), draw(40)
    latents, _, experts = encode_by_loops(sae, x.numpy())
    assert set(experts) == {0, 1, 2}
    np.testing.assert_allclose(sae.encode(x).detach().numpy(), latents, rtol=1e-12, atol=1e-14)
    w = to_lists(sae)
    expected = [
        [
            w["b_dec"][i] + sum(latents[row, j] * w["W_dec"][j, i] for j in range(15))
            for i in range(6)
        ]
        for row in range(40)
    ]
    np.testing.assert_allclose(sae(x).detach().numpy(), expected, rtol=1e-12)


def test_losses_follow_the_formulas():
    sae, x = make_sae(load_balance_coefficient=2.0), draw(40)
    latents, probabilities, experts = encode_by_loops(sae, x.numpy())
    output = sae.training_forward_pass(make_step(x))
    w = to_lists(sae)
    errors = (latents @ w["W_dec"] + w["b_dec"] - x.numpy()) ** 2
    assert output.losses["mse_loss"].item() == pytest.approx(errors.sum() / 40)
    balance = 3 * sum(
        (sum(e == i for e in experts) / 40) * probabilities[:, i].mean() for i in range(3)
    )
    assert output.losses["load_balance_loss"].item() == pytest.approx(2 * balance)
    assert output.losses["auxiliary_reconstruction_loss"].item() == 0
    assert output.loss.item() == pytest.approx(errors.sum() / 40 + 2 * balance)
    torch.testing.assert_close(output.feature_acts.to_dense(), torch.from_numpy(latents))


def find_unused(sae, x: torch.Tensor) -> torch.Tensor:
    return (sae.encode(x) != 0).sum(dim=0) == 0


def test_revival_loss_follows_the_formula():
    sae, x = make_sae(aux_loss_coefficient=0.5), draw(40)
    dead = torch.zeros(15, dtype=torch.bool)
    dead[[0, 1, 2, 3, 7]] = True  # 4 of expert 0 (more than d/2 = 3), 1 of expert 1, none of 2
    output = sae.training_forward_pass(make_step(x, dead))
    _, probabilities, experts = encode_by_loops(sae, x.numpy())
    w, total = to_lists(sae), 0.0
    for row, expert in enumerate(experts):
        left = x[row].numpy() - output.sae_out[row].detach().numpy()
        own = [j for j in range(15) if dead[j] and j // 5 == expert]
        pre = {j: (x[row].numpy() - w["b_dec"]) @ w["W_enc"][:, j] for j in own}
        taken = sorted(pre, key=lambda j: pre[j], reverse=True)[:3]
        recovered = sum(probabilities[row, expert] * pre[j] * w["W_dec"][j] for j in taken)
        total += min(len(own) / 3, 1) * ((recovered - left) ** 2).sum()
    assert output.losses["auxiliary_reconstruction_loss"].item() == pytest.approx(0.5 * total / 40)


def test_gradients_by_finite_differences():
    sae, x = make_sae(), draw(25)

    def compute_loss() -> torch.Tensor:
        return sae.training_forward_pass(make_step(x)).loss

    assert measure_gradient_error(compute_loss, list(sae.parameters())) < 1e-7


def test_gradients_of_the_revival_loss():
    sae, x = make_sae(), draw(25)
    dead = torch.arange(15) % 2 == 0
    sae_out = sae(x).detach()

    def compute_loss() -> torch.Tensor:
        _, state = sae.encode_with_hidden_pre(x)
        return sae.calculate_aux_loss(make_step(x, dead), x, state, sae_out)[
            "auxiliary_reconstruction_loss"
        ]

    assert measure_gradient_error(compute_loss, [sae.W_enc, sae.W_dec, sae.b_dec]) < 1e-7
    grads = torch.autograd.grad(compute_loss(), [sae.W_router, sae.b_router], allow_unused=True)
    assert grads == (None, None)  # reviving latents does not steer the router


def test_decoder_gradient_is_tangent_and_rows_are_unit():
    sae, x = make_sae(), draw(25)
    with torch.no_grad():
        sae.W_dec *= 3
    before = sae(x)
    sae.training_forward_pass(make_step(x)).loss.backward()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(15, dtype=torch.float64))
    torch.testing.assert_close(sae(x), before)
    assert (sae.W_dec.grad * sae.W_dec).sum(dim=1).abs().max() < 1e-12


def test_start():
    sae = SwitchTrainingSAE(SwitchTrainingSAEConfig(**SIZES))
    x = draw(500, dtype=torch.float32)
    sae.initialise_from_data(x)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(15))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert torch.equal(sae.b_dec, find_geometric_median(x))
    assert torch.equal(sae.b_dec, sae.b_router)


def test_geometric_median_beats_its_neighbourhood_and_ignores_an_outlier():
    x = draw(301)

    def measure(point: torch.Tensor) -> float:
        return (x - point).norm(dim=1).sum().item()

    median = find_geometric_median(x, tolerance=1e-10)
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        step = torch.randn(6, generator=generator, dtype=torch.float64)
        assert measure(median + 1e-3 * step) > measure(median)
    x[0] = 1e9
    assert (find_geometric_median(x) - median).norm() < 0.1
    same = torch.ones(4, 3)
    assert torch.equal(find_geometric_median(same), same[0])
    with pytest.raises(ValueError, match="expected finite rows"):
        find_geometric_median(torch.full((2, 3), torch.nan))


@pytest.mark.parametrize("n", [0, 1, 63])
@pytest.mark.parametrize(("d_sae", "k", "n_experts"), [(15, 5, 3), (12, 2, 12 // 6), (7, 3, 1)])
def test_sparse_and_dense_agree(n, d_sae, k, n_experts):
    sae, x = make_sae(d_sae=d_sae, k=k, n_experts=n_experts), draw(n)
    codes = sae.encode_sparse(x)
    assert codes.indices.shape == codes.values.shape == (n, k)
    assert torch.equal(codes.to_dense(), sae.encode(x))
    torch.testing.assert_close(sae.decode_sparse(codes), sae.decode(sae.encode(x)))
    used = codes.values > 0
    assert torch.equal(used.sort(dim=1, descending=True).values, used)  # used slots first
    assert not codes.indices[~used].any()
    assert sae.encode(x.reshape(n, 1, 6)).shape == (n, 1, d_sae)


def test_blocks_change_nothing(monkeypatch):
    sae, x = make_sae(), draw(101)
    whole = sae.encode_sparse(x).to_dense()
    monkeypatch.setattr(sparse_sae, "ROWS_PER_BLOCK", 7)
    torch.testing.assert_close(sae.encode_sparse(x).to_dense(), whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_experts": 4}, r"n_experts: expected a divisor of d_sae=15 .*, got 4"),
        ({"n_experts": 0}, "n_experts: expected a divisor"),
        ({"k": 6}, "k: expected at most 5 latents to choose from, got 6"),
        ({"k": 0}, "k: expected at least 1, got 0"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations: expected one of none"),
    ],
)
@pytest.mark.parametrize("config", [SwitchSAEConfig, SwitchTrainingSAEConfig])
def test_bad_settings_are_named(config, changes, message):
    with pytest.raises(ValueError, match=message):
        config(**{**SIZES, **changes})
    with pytest.raises(ValueError, match="decoder_init_norm"):
        SwitchTrainingSAEConfig(**SIZES, decoder_init_norm=0.1)


@pytest.mark.parametrize("autocast", [False, True])
def test_training_uses_every_expert_and_saves(autocast, tmp_path):
    from sae_lens import SAE

    settings = {"d_in": 16, "d_sae": 64, "k": 4, "n_experts": 4}
    torch.manual_seed(0)
    sae = SwitchTrainingSAE(
        SwitchTrainingSAEConfig(**settings, normalize_activations="expected_average_only_in")
    )
    trainer = make_trainer(sae, autocast=autocast)
    losses = train(trainer)
    assert losses[-1]["mse_loss"] < 0.4 * losses[0]["mse_loss"]
    assert int(trainer.dead_neurons.sum()) <= 3
    x = next(draw_batches(1000, seed=0))
    scaled_latents = sae.encode(trainer.activation_scaler(x))
    usage = (scaled_latents != 0).reshape(1000, 4, 16).any(dim=2).float().mean(dim=0)
    assert usage.min() > 0.1
    assert usage.sum() <= 1
    unexplained = measure_unexplained(sae, trainer.activation_scaler(x))
    assert unexplained < 0.35

    factor = trainer.activation_scaler.scaling_factor
    sae.fold_activation_norm_scaling_factor(factor)
    sae.fold_W_dec_norm()
    assert measure_unexplained(sae, x) == pytest.approx(unexplained, rel=1e-4)
    torch.testing.assert_close(sae.encode(x), scaled_latents / factor, rtol=1e-4, atol=1e-4)
    sae.save_inference_model(tmp_path / "sae")
    again = SAE.load_from_disk(tmp_path / "sae")
    assert type(again).__name__ == "SwitchSAE"
    assert again.cfg.n_experts == 4
    torch.testing.assert_close(again.encode(x), sae.encode(x), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(again(x), sae(x), atol=1e-6, rtol=1e-6)
    assert again.W_enc.shape == (16, 64)
    dictionary = load_dictionary(tmp_path / "sae")
    codes = dictionary.encode(x)
    assert codes.indices.shape == (1000, 4)
    torch.testing.assert_close(codes.to_dense(), again.encode(x), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        dictionary.decode(codes), codes.decode(dictionary.atoms) + dictionary.bias
    )


def test_load_balance_keeps_experts_in_use():
    usages = []
    for coefficient in (0.0, 3.0):
        torch.manual_seed(0)
        config = SwitchTrainingSAEConfig(
            16, 64, k=4, n_experts=8, load_balance_coefficient=coefficient
        )
        sae = SwitchTrainingSAE(config)
        trainer = make_trainer(sae, steps=300)
        train(trainer)
        x = trainer.activation_scaler(next(draw_batches(2000)))
        experts = sae.encode_with_hidden_pre(x)[1].argmax(dim=1)
        usages.append(torch.bincount(experts, minlength=8) / 2000)
    assert usages[1].min() > 0.05
    assert usages[1].min() > usages[0].min()


def test_router_finds_the_components_of_a_mixture():
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(4, 24, 32, generator=generator), dim=2)
    means = 2 * torch.nn.functional.normalize(torch.randn(4, 32, generator=generator), dim=1)

    def draw_mixture(n: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
        components = torch.randint(4, (n,), generator=generator)
        picks = torch.rand(n, 24, generator=generator).topk(3, dim=1).indices
        sizes = 1 + torch.rand(n, 3, generator=generator)
        codes = torch.zeros(n, 24).scatter_(1, picks, sizes)
        samples = torch.einsum("nm,nmd->nd", codes, atoms[components]) + means[components]
        return 3 * samples, components

    torch.manual_seed(0)
    sae = SwitchTrainingSAE(SwitchTrainingSAEConfig(32, 96, k=3, n_experts=4))
    trainer = make_trainer(sae, batches=(draw_mixture()[0] for _ in iter(int, 1)))
    train(trainer)
    x, components = draw_mixture(2000)
    experts = sae.encode_with_hidden_pre(trainer.activation_scaler(x))[1].argmax(dim=1)
    table = torch.zeros(4, 4).index_put_((components, experts), torch.ones(2000), accumulate=True)
    assert table.max(dim=1).values.sum() > 0.95 * 2000  # a component goes to one expert
    assert table.argmax(dim=1).unique().numel() == 4  # and each to another


def test_state_dict_is_the_whole_state(tmp_path):
    from sae_lens.saes.sae import TrainingSAE

    torch.manual_seed(0)
    saes = [SwitchTrainingSAE(SwitchTrainingSAEConfig(16, 64, k=4, n_experts=4)) for _ in range(2)]
    first = make_trainer(saes[0], steps=60)
    train(first)
    second = make_trainer(saes[1], steps=60)
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


def test_duplicates_across_experts():
    generator = torch.Generator().manual_seed(0)
    atoms = torch.linalg.qr(torch.randn(32, 32, generator=generator)).Q[:24]  # orthogonal
    assert measure_expert_duplicates(atoms, 3) == 0
    atoms[8] = 2 * atoms[0]  # expert 1 doubles an atom of expert 0, at another length
    atoms[16] = -atoms[1]  # an opposite is no twin
    atoms[2] = atoms[3]  # nor is a double in the same expert
    atoms[20] = atoms[5] + 0.6 * atoms[6]  # cosine .857
    for rows in (1, 5, 1024):
        assert measure_expert_duplicates(atoms, 3, rows=rows) == pytest.approx(2 / 24)
    assert measure_expert_duplicates(atoms, 3, threshold=0.8) == pytest.approx(4 / 24)
    assert measure_expert_duplicates(atoms, 1) == 0
    with pytest.raises(ValueError, match="n_experts: expected a divisor of 24 atoms, got 5"):
        measure_expert_duplicates(atoms, 5)
