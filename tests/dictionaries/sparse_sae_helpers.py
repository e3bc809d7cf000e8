"""What the tests of Switch SAE and KronSAE share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import TrainingSAE, TrainStepInput
from sae_lens.training.sae_trainer import SAETrainer

import dbksvd.dictionaries.registration

dbksvd.dictionaries.registration.register()


def make_training_sae(architecture: str, seed: int = 0, **settings: Any) -> TrainingSAE[Any]:
    """Return a training SAE with all parameters drawn at random (unit decoder rows)."""
    sae_class, config_class = get_sae_training_class(architecture)
    torch.manual_seed(seed)
    sae = sae_class(config_class(**settings))
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            # Far from the init, where encoder and decoder are tied and biases are 0.
            parameter.copy_(torch.randn_like(parameter) * (0.5 if name[0] == "W" else 0.2))
        sae.fold_W_dec_norm()
    return sae


def make_step(x: torch.Tensor, dead: torch.Tensor | None = None) -> TrainStepInput:
    return TrainStepInput(
        sae_in=x, coefficients={}, dead_neuron_mask=dead, n_training_steps=0, is_logging_step=False
    )


def measure_gradient_error(
    compute_loss: Callable[[], torch.Tensor], parameters: list[torch.Tensor], step: float = 1e-6
) -> float:
    """Return the largest difference of autograd from central differences, relative to the norm."""
    gradients = torch.autograd.grad(compute_loss(), parameters, allow_unused=True)
    worst = 0.0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        expected = torch.zeros_like(parameter)
        with torch.no_grad():
            start = parameter.clone()
            for place in range(parameter.numel()):
                losses = []
                for sign in (1, -1):
                    parameter.view(-1)[place] += sign * step
                    losses.append(compute_loss().item())
                    parameter.copy_(start)
                expected.view(-1)[place] = (losses[0] - losses[1]) / (2 * step)
        gradient = torch.zeros_like(parameter) if gradient is None else gradient
        worst = max(worst, ((gradient - expected).norm() / expected.norm().clamp(min=1)).item())
    return worst


def draw_batches(
    batch: int = 256, *, d: int = 16, m: int = 32, seed: int = 0
) -> Iterator[torch.Tensor]:
    """Yield samples of 3 planted atoms each, off centre and far from unit scale."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=generator), dim=1)
    while True:
        picks = torch.rand(batch, m, generator=generator).topk(3, dim=1).indices
        sizes = 1 + torch.rand(batch, 3, generator=generator)
        yield 3 + 5 * torch.zeros(batch, m).scatter_(1, picks, sizes) @ atoms


def make_trainer(
    sae: TrainingSAE[Any],
    *,
    steps: int = 400,
    autocast: bool = False,
    batch: int = 256,
    batches: Iterator[torch.Tensor] | None = None,
) -> SAETrainer[Any, Any]:
    """Return a trainer whose input scale and biases come from the data (default: planted)."""
    batches = batches or draw_batches(batch)
    config = SAETrainerConfig(
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        lr=4e-3,
        lr_end=4e-4,
        lr_warm_up_steps=steps // 20,
        lr_decay_steps=steps // 5,
        dead_feature_window=50,
        autocast=autocast,
        device="cpu",
        n_batches_for_norm_estimate=10,
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=batches)
    trainer.activation_scaler.estimate_scaling_factor(
        d_in=sae.cfg.d_in, data_provider=batches, n_batches_for_norm_estimate=10
    )
    if hasattr(sae, "initialise_from_data"):
        sae.initialise_from_data(
            trainer.activation_scaler(torch.cat([next(batches) for _ in range(8)]))
        )
    return trainer


def train(trainer: SAETrainer[Any, Any]) -> list[dict[str, float]]:
    """Run all steps as the fit does; return the losses of every step."""
    losses = []
    while trainer.n_training_samples < trainer.cfg.total_training_samples:
        output = trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
        losses.append({name: value.item() for name, value in output.losses.items()})
    return losses


def measure_unexplained(sae: Any, x: torch.Tensor) -> float:
    with torch.no_grad():
        return ((x - sae(x)).square().sum() / (x - x.mean(dim=0)).square().sum()).item()
