"""Sparse autoencoders, trained with SAELens's own classes on the same shards as everyone else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.evals import ExplainedVarianceCalculator
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import SAEMetadata, TrainingSAE
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor
from tqdm import tqdm

from dbksvd.fit.registry import FitTask
from dbksvd.fit.result import FitResult
from dbksvd.shards import ActivationShards

ARCHITECTURES = ("topk",)
N_NORM_BATCHES = 20
HELDOUT_ROWS = 4096


@dataclass
class SavableSAE:
    """Lets a SAELens training SAE write its inference form."""

    sae: TrainingSAE[Any]

    def save(self, path: str | Path) -> None:
        """Write ``cfg.json`` and safetensors with SAELens's own call."""
        self.sae.save_inference_model(str(path))


def fit(task: FitTask) -> FitResult:
    """Train a SAELens SAE.

    The input is scaled to unit expected norm per coordinate while training, as SAELens does; the
    scale and the decoder norms are folded into the weights afterwards, so that the dictionary has
    unit atoms and speaks in units of the activations. The decoder bias starts at the data mean.

    Parameters
    ----------
    task : FitTask
        ``settings``: architecture, training_samples, batch_size, lr, lr_warm_up, lr_decay (the
        last two as fractions of the steps), measure_every (samples).

    Returns
    -------
    FitResult
        Held-out variance explained is measured on the first 4,096 held-out samples while training.

    References
    ----------
    Gao et al. (2024), "Scaling and evaluating sparse autoencoders", for TopK; SAELens for the code.
    """
    settings = task.settings
    trainer = _build_trainer(task)
    trainer.activation_scaler.estimate_scaling_factor(
        d_in=task.train.width,
        data_provider=trainer.data_provider,
        n_batches_for_norm_estimate=min(N_NORM_BATCHES, trainer.cfg.total_training_steps),
    )
    trainer.sae.b_dec.data = trainer.activation_scaler(task.train.mean.to(task.device))
    heldout = task.heldout.read(0, min(HELDOUT_ROWS, len(task.heldout))).to(task.device)
    log = _train(trainer, heldout, measure_every=settings["measure_every"])
    assert trainer.activation_scaler.scaling_factor is not None
    trainer.sae.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
    trainer.sae.fold_W_dec_norm()
    summary = {
        "seconds": log[-1]["seconds"],
        "samples_seen": trainer.n_training_samples,
        "iterations": trainer.n_training_steps,
        "implementation": f"sae_lens {settings['architecture']}",
    }
    return FitResult(SavableSAE(trainer.sae), log, "samples", summary)


def _build_trainer(task: FitTask) -> SAETrainer[Any, Any]:
    settings = task.settings
    architecture = settings["architecture"]
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture: expected one of {', '.join(ARCHITECTURES)}, got {architecture!r}"
        )
    sae_class, config_class = get_sae_training_class(architecture)
    sae_config = config_class(
        d_in=task.train.width,
        d_sae=task.n_atoms,
        k=task.k,
        device=str(task.device),
        normalize_activations="expected_average_only_in",
        metadata=SAEMetadata(**task.metadata),
    )
    steps = settings["training_samples"] // settings["batch_size"]
    config = SAETrainerConfig(
        total_training_samples=steps * settings["batch_size"],
        train_batch_size_samples=settings["batch_size"],
        lr=settings["lr"],
        lr_end=settings["lr"] / 10,
        lr_warm_up_steps=round(steps * settings["lr_warm_up"]),
        lr_decay_steps=round(steps * settings["lr_decay"]),
        device=str(task.device),
    )
    batches = iterate_batches(task.train, settings["batch_size"], seed=task.seed)
    return SAETrainer(cfg=config, sae=sae_class(sae_config), data_provider=batches)


def iterate_batches(
    shards: ActivationShards, batch_size: int, *, seed: int, blocks: int = 16
) -> Iterator[Tensor]:
    """Yield batches of shape (batch_size, d) for ever, in a new order every pass.

    Rows are read in blocks of ``blocks · batch_size``; each pass visits the blocks in a new order
    and shuffles the rows inside a block. The shards are globally shuffled already.
    """
    generator = torch.Generator().manual_seed(seed)
    batch_size = min(batch_size, len(shards))
    starts = torch.arange(0, len(shards) - batch_size + 1, blocks * batch_size)
    while True:
        for start in starts[torch.randperm(len(starts), generator=generator)].tolist():
            block = shards.read(start, min(start + blocks * batch_size, len(shards)))
            block = block[torch.randperm(len(block), generator=generator)]
            for batch in block.split(batch_size):
                if len(batch) == batch_size:
                    yield batch


def _train(
    trainer: SAETrainer[Any, Any], heldout: Tensor, *, measure_every: int
) -> list[dict[str, Any]]:
    """Run all steps; return a row for every `measure_every` samples and for the end."""
    log: list[dict[str, Any]] = []
    total = trainer.cfg.total_training_samples
    seconds, next_measure = 0.0, measure_every
    with tqdm(total=total, unit="sample", unit_scale=True, desc="train SAE", mininterval=2) as bar:
        while trainer.n_training_samples < total:
            started = time.perf_counter()
            trainer.maybe_reset_sparsity()
            output = trainer.step(next(trainer.data_provider))
            trainer.n_training_steps += 1
            seconds += time.perf_counter() - started
            bar.update(len(output.sae_in))
            if trainer.n_training_samples >= min(next_measure, total):
                next_measure += measure_every
                log.append(_measure(trainer, output, heldout, seconds))
                bar.set_postfix(fve=f"{log[-1]['fve_heldout']:.3f}")
    return log


@torch.no_grad()
def _measure(
    trainer: SAETrainer[Any, Any], output: Any, heldout: Tensor, seconds: float
) -> dict[str, Any]:
    scaled = trainer.activation_scaler(heldout)
    trainer.sae.eval()
    codes = trainer.sae.encode(scaled)
    variance = ExplainedVarianceCalculator()
    variance.add_batch(trainer.sae.decode(codes), scaled)
    return {
        "iteration": trainer.n_training_steps,
        "samples_seen": trainer.n_training_samples,
        "seconds": seconds,
        "loss": output.loss.item(),
        "fve_heldout": variance.compute(),
        "l0": (codes != 0).sum(dim=1).float().mean().item(),
        "dead_atoms": int(trainer.dead_neurons.sum()),
    }
