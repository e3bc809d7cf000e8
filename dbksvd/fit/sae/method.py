"""Sparse autoencoders, trained with SAELens's own classes on the same shards as everyone else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sae_lens.saes.sae import TrainingSAE

from dbksvd.base.files import read_json, write_json
from dbksvd.fit.sae.settings import complete_settings
from dbksvd.fit.sae.trainer import SAELoop
from dbksvd.fit.task import FitResult, FitTask


@dataclass
class SavableSAE:
    """Lets a SAELens training SAE write its inference form."""

    sae: TrainingSAE[Any]

    def save(self, path: str | Path) -> None:
        """Write ``cfg.json`` and safetensors with SAELens's own call."""
        _, config = self.sae.save_inference_model(str(path))
        # SAELens orders the keys by a set, so differently in every process.
        write_json(config, dict(sorted(read_json(config).items())))


def fit(task: FitTask) -> FitResult:
    """Train an SAE of any architecture of :data:`dbksvd.fit.sae.settings.ARCHITECTURES`.

    The input is scaled to unit expected norm per coordinate while training, as SAELens does; the
    scale and the decoder norms are folded into the weights afterwards, so that the dictionary has
    unit atoms and speaks in units of the activations. The decoder bias starts at the data mean,
    or where the architecture itself puts it. Architectures without k reach an L0 of k by steering
    their sparsity coefficient (:class:`dbksvd.fit.sae.sparsity.SparsityController`).

    An unfinished training goes on from the checkpoint; on the CPU it ends with the same bytes as
    one that was not interrupted.

    Parameters
    ----------
    task : FitTask
        ``settings``: architecture and training_samples (samples), and whatever is to differ from
        the defaults: batch_size (samples), lr, lr_schedule ("constant" or "cosine"), lr_warm_up
        and lr_decay (fractions of the steps; "cosine" has no other decay), measure_every and
        dead_window (samples), max_seconds, tol (least gain of held-out variance explained between
        two measurements), checkpoint_seconds, autocast (bfloat16 products, on CUDA only), and the
        architecture's own. The learning rate follows the samples, so a training that ends early
        by max_seconds or tol ends before its decay.

    Returns
    -------
    FitResult
        Held-out variance explained, L0 and the loss are logged while training, the first two for
        the inference form on the first 4,096 held-out samples, outside the seconds. The seal
        states the L0 reached, the coefficient it took, the precision and all settings.

    Raises
    ------
    ValueError
        If a setting does not fit the sizes, or the loss is not finite.

    References
    ----------
    Gao et al. (2024), "Scaling and evaluating sparse autoencoders", for TopK; Rajamanoharan et al.
    (2024) for gated and JumpReLU; Bussmann et al. (2024, 2025) for BatchTopK and Matryoshka; Costa
    et al. (2025), "From flat to hierarchical", for matching pursuit; SAELens for the code.
    """
    settings = complete_settings(task.settings)
    devices = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(task.seed)
        loop = SAELoop(task, settings)
        loop.run()
    sae = loop.trainer.sae
    assert loop.trainer.activation_scaler.scaling_factor is not None
    sae.fold_activation_norm_scaling_factor(loop.trainer.activation_scaler.scaling_factor)
    with suppress(NotImplementedError):  # an encoder tied to its atoms has kept them at unit norm
        sae.fold_W_dec_norm()
    last = loop.log[-1]
    summary = {
        "seconds": last["seconds"],
        "samples_seen": last["samples_seen"],
        "iterations": last["iteration"],
        "implementation": f"sae_lens {settings['architecture']}",
        "precision": loop.precision,
        "l0": last["l0"],
        "coefficient": last["coefficient"],
        "settings": settings,
    }
    return FitResult(SavableSAE(sae), loop.log, loop.stop_reason, summary)
