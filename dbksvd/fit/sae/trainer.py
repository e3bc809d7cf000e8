"""The training loop of all gradient methods: SAELens's trainer, our data, log and checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import partial
from typing import Any

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import SAEMetadata, TrainingSAE
from sae_lens.training.activation_scaler import ActivationScaler
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor
from tqdm import tqdm

from dbksvd.activations.source import fingerprint_source
from dbksvd.base.clock import read_clock
from dbksvd.fit.ksvd.checkpoint import check_same
from dbksvd.fit.sae.ahead import BatchesAhead
from dbksvd.fit.sae.batches import BatchStream
from dbksvd.fit.sae.centring import CentredScaler, fold_scaler_, take_weights_
from dbksvd.fit.sae.checkpoint import load_checkpoint, save_checkpoint
from dbksvd.fit.sae.configure import configure_architecture, describe_settings
from dbksvd.fit.sae.measure import count_active, measure_heldout
from dbksvd.fit.sae.ranks import RankTrainer
from dbksvd.fit.sae.restraint import Restraint
from dbksvd.fit.sae.settings import TrainingSettings
from dbksvd.fit.sae.sparsity import SparsityController
from dbksvd.fit.task import FitTask

N_NORM_BATCHES = 20
HELDOUT_ROWS = 4096
INITIAL_ROWS = 4096
THRESHOLD_ROWS = 32_768  # of SAEs whose inference form has a threshold that is set, not learned
# A held-out gain says nothing of convergence while L0 still moves towards k.
L0_TOLERANCE = 0.1

_logger = logging.getLogger(__name__)


class SAELoop:
    """One training: what does not change in it, and its steps.

    Parameters
    ----------
    task : FitTask
        Data, sizes, seed, device and folder of the checkpoint.
    settings : TrainingSettings
        Complete settings (:func:`dbksvd.fit.sae.configure.complete_settings`).
    start : mapping of str to tensor, optional
        Weights of a finished SAE to begin with (:func:`dbksvd.fit.sae.centring.take_weights_`).
    """

    def __init__(
        self,
        task: FitTask,
        settings: TrainingSettings,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.start = start
        assert settings.training_samples is not None  # they are complete
        assert settings.measure_every is not None
        assert settings.dead_window is not None
        self.measure_every, self.dead_window = settings.measure_every, settings.dead_window
        self.task, self.settings, self.ranks = task, settings, task.ranks
        self.uses_autocast = settings.autocast and task.device.type == "cuda"
        ignored = settings.autocast and not self.uses_autocast
        _logger.info("%s%s", self.precision, ": autocast is for CUDA only" if ignored else "")
        self.batches = BatchStream(task.train, settings.batch_size, seed=task.seed)
        if self.batches.batch_size < self.ranks.size:
            raise ValueError(
                f"batch_size: expected at least a sample for each of {self.ranks.size} ranks, "
                f"got {self.batches.batch_size}"
            )
        self.n_steps = max(1, settings.training_samples // self.batches.batch_size)
        share = self.ranks.find_share(self.batches.batch_size)
        self.ahead = BatchesAhead(self.batches, task.device, self.n_steps, share)
        self.trainer = self.build_trainer()
        self.controller: SparsityController | None = None
        if settings.steered is not None:
            scheduler = self.trainer.coefficient_schedulers[settings.steered]
            self.controller = SparsityController(scheduler, task.k, self.n_steps)
        self.identity = self.identify()
        self.heldout = task.heldout.read(0, min(HELDOUT_ROWS, len(task.heldout)))
        self.log: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.stop_reason = ""

    @property
    def precision(self) -> str:
        """What products are computed in."""
        return "bfloat16 autocast" if self.uses_autocast else "float32"

    @property
    def coefficient(self) -> float | None:
        """The steered coefficient, None where nothing is steered."""
        return None if self.controller is None else float(self.controller.scheduler.final_value)

    def build_trainer(self) -> SAETrainer[Any, Any]:
        """Return SAELens's trainer of an untrained SAE."""
        task, settings, steps = self.task, self.settings, self.n_steps
        sae_class, config_class = get_sae_training_class(settings.architecture)
        sae_config = config_class(
            d_sae=task.n_atoms,
            device=str(task.device),
            metadata=SAEMetadata(**task.metadata),
            **self.configure_inputs(),
            **configure_architecture(settings, task.n_atoms, task.k),
        )
        is_cosine = settings.lr_schedule == "cosine"
        config = SAETrainerConfig(
            total_training_samples=steps * self.batches.batch_size,
            train_batch_size_samples=self.batches.batch_size,
            lr=settings.lr,
            lr_end=settings.lr / 1000,
            adam_beta1=settings.betas[0],
            adam_beta2=settings.betas[1],
            lr_scheduler_name="cosineannealing" if is_cosine else "constant",
            lr_warm_up_steps=round(steps * settings.lr_warm_up),
            lr_decay_steps=0 if is_cosine else round(steps * settings.lr_decay),
            dead_feature_window=max(1, self.dead_window // self.batches.batch_size),
            device=str(task.device),
            autocast=self.uses_autocast,
        )
        sae = sae_class(sae_config)
        self.restraint = Restraint(sae, settings)
        trainer: SAETrainer[Any, Any]
        if self.ranks.size > 1:
            trainer = RankTrainer(config, sae, self.ranks)
        else:
            trainer = SAETrainer(cfg=config, sae=sae, data_provider=iter(()))
        if settings.last_rate and config.lr_decay_steps:
            # SAELens has no setting for it: its decay ends at 0
            trainer.lr_scheduler._schedulers[-1].end_factor = settings.last_rate  # type: ignore[attr-defined]
        if settings.clip is not None:
            cut = partial(_cut_gradients, list(sae.parameters()), settings.clip)
            trainer.optimizer.register_step_pre_hook(cut)
        trainer.activation_scaler = self.make_scaler()
        return trainer

    def configure_inputs(self) -> dict[str, Any]:
        """Return what SAELens's config says of the inputs: width, and that they are scaled."""
        width = self.task.train.width
        return {"d_in": width, "normalize_activations": "expected_average_only_in"}

    def make_scaler(self) -> ActivationScaler:
        """Return what samples come through before they are learned from."""
        if not self.settings.centre:
            return ActivationScaler()
        return CentredScaler(self.task.train.mean.to(self.task.device))

    def finish(self) -> TrainingSAE[Any]:
        """Return the SAE with unit atoms, for samples in their own unit."""
        sae = self.trainer.sae
        fold_scaler_(sae, self.trainer.activation_scaler)
        with suppress(NotImplementedError):  # tied to its atoms, it has kept them at unit norm
            sae.fold_W_dec_norm()
        return sae

    def run(self) -> None:
        """Do all steps, from the checkpoint on if there is one."""
        progress = load_checkpoint(self.task.checkpoint, self.trainer, self.identity)
        check_same(self.trainer.n_training_steps, self.task.checkpoint, self.ranks)
        if progress is None:
            self.initialise()
        else:
            self.log, self.seconds = progress["log"], progress["seconds"]
            self.stop_reason = progress["stop_reason"]
            if self.controller is not None:
                self.controller.load_state_dict(progress["controller"])
        saved = time.perf_counter()
        bar = tqdm(
            total=self.n_steps * self.batches.batch_size,
            initial=self.trainer.n_training_samples,
            unit="sample",
            unit_scale=True,
            desc=f"train {self.settings.architecture}",
            mininterval=2,
            disable=not self.ranks.is_first,
        )
        with bar, closing(self.ahead):
            while not self.stop_reason:
                self.step()
                bar.update(self.batches.batch_size)
                if self.log:
                    bar.set_postfix(fve=f"{self.log[-1]['fve_heldout']:.3f}", refresh=False)
                if (
                    self.stop_reason
                    or time.perf_counter() - saved >= self.settings.checkpoint_seconds
                ):
                    self.save()
                    saved = time.perf_counter()

    def initialise(self) -> None:
        """Find the scale of the inputs and put the SAE's first weights to the data."""
        started = read_clock(self.task.device)
        trainer, task = self.trainer, self.task
        n_batches = min(N_NORM_BATCHES, self.n_steps)
        trainer.activation_scaler.estimate_scaling_factor(
            d_in=task.train.width,
            data_provider=(self.read_centred(index) for index in range(n_batches)),
            n_batches_for_norm_estimate=n_batches,
        )
        if self.start is not None:
            take_weights_(trainer.sae, trainer.activation_scaler, self.start)
        elif hasattr(trainer.sae, "initialise_from_data"):
            rows = task.train.read(0, min(INITIAL_ROWS, len(task.train)))
            trainer.sae.initialise_from_data(trainer.activation_scaler(rows.to(task.device)))
        else:
            mean = task.train.mean.to(task.device)
            trainer.sae.b_dec.data = trainer.activation_scaler(mean)
        self.seconds += self._count_seconds(started)

    def read_centred(self, index: int) -> Tensor:
        """Return batch `index` (n, d) less the centre, if the training subtracts one."""
        rows, scaler = self.batches.read(index), self.trainer.activation_scaler
        return rows - scaler.centre.to(rows) if isinstance(scaler, CentredScaler) else rows

    def step(self) -> None:
        """Train on one batch; measure, and find out whether to stop, where that is due."""
        started = read_clock(self.task.device)
        trainer = self.trainer
        lr = trainer.optimizer.param_groups[0]["lr"]
        trainer.maybe_reset_sparsity()
        rows = self.ahead.read(trainer.n_training_steps)
        share = len(rows) / self.batches.batch_size
        output = trainer.step(rows)
        self.restraint.apply_(trainer.sae)
        trainer.n_training_steps += 1
        if self.settings.architecture == "matching_pursuit":
            # Its pursuit is one only over unit atoms, which SAELens leaves to the caller.
            weights = trainer.sae.W_dec.data
            weights /= torch.linalg.vector_norm(weights, dim=1, keepdim=True)
        if self.controller is not None and self.controller.is_due(trainer.n_training_steps):
            (l0,) = self.ranks.sum_numbers(share * count_active(output.feature_acts))
            self.controller.update(l0, trainer.n_training_steps)
        is_last = trainer.n_training_steps == self.n_steps
        limit = self.settings.max_seconds
        is_late = limit is not None and self.seconds + self._count_seconds(started) >= limit
        every, seen = self.measure_every, trainer.n_training_samples
        is_measured = seen // every > (seen - self.batches.batch_size) // every
        if not (is_last or is_late or is_measured):
            self.seconds += self._count_seconds(started)
            return
        # waits for the device, so its time is counted
        (loss,) = self.ranks.sum_numbers(share * output.loss.item())
        self.seconds += self._count_seconds(started)
        if not math.isfinite(loss):
            raise ValueError(
                f"lr: expected a rate at which training is stable, got {self.settings.lr}: "
                f"the loss is {loss} after {seen} samples"
            )
        self.ranks.check_alike(trainer.sae.W_dec, "weights")
        self.log.append({**self.measure(), "loss": loss, "lr": lr})
        if is_last or is_late:
            self.stop_reason = "samples" if is_last else "max_seconds"
        elif self.has_converged():
            self.stop_reason = "converged"

    def _count_seconds(self, started: float) -> float:
        """Return the seconds since `started`, the same on all ranks."""
        return self.ranks.ask_first(read_clock(self.task.device) - started)

    def measure(self) -> dict[str, Any]:
        """Return a row of the log: the SAE as it would be saved now, on held-out samples."""
        trainer = self.trainer
        if hasattr(trainer.sae, "set_threshold_"):
            rows = self.task.train.read(0, min(THRESHOLD_ROWS, len(self.task.train)))
            trainer.sae.set_threshold_(trainer.activation_scaler(rows.to(self.task.device)))
        return {
            "iteration": trainer.n_training_steps,
            "samples_seen": trainer.n_training_samples,
            "seconds": self.seconds,
            **self.measure_heldout(),
            "dead_atoms": int(trainer.dead_neurons.sum()),
            "coefficient": self.coefficient,
        }

    def measure_heldout(self) -> dict[str, float]:
        """Return variance explained and L0 on held-out samples."""
        return measure_heldout(self.trainer, self.heldout)

    def has_converged(self) -> bool:
        """Return whether the last measurement gained less than ``tol`` on the one before."""
        if self.settings.tol <= 0 or len(self.log) < 2:
            return False
        before, now = self.log[-2:]
        if self.controller is not None and abs(now["l0"] / self.task.k - 1) > L0_TOLERANCE:
            return False
        return now["fve_heldout"] - before["fve_heldout"] < self.settings.tol

    def save(self) -> None:
        """Write a checkpoint: the first rank does, for all."""
        if not self.ranks.is_first:
            return
        progress = {
            "log": self.log,
            "seconds": self.seconds,
            "stop_reason": self.stop_reason,
            "controller": self.controller and self.controller.state_dict(),
        }
        save_checkpoint(self.task.checkpoint, self.trainer, progress, self.identity)

    def identify(self) -> dict[str, Any]:
        """Return what a checkpoint must agree on to be used."""
        task = self.task
        settings = describe_settings(self.settings)
        del settings["checkpoint_seconds"]  # may change between runs
        return {
            "data": [fingerprint_source(task.train), fingerprint_source(task.heldout)],
            "settings": settings,
            "sizes": [task.n_atoms, task.k],
            "seed": task.seed,
            "device": task.device.type,
            "start": self.start and [float(w.double().sum()) for w in self.start.values()],
        }


def _cut_gradients(weights: list[Tensor], norm: float, *_args: Any) -> None:
    torch.nn.utils.clip_grad_norm_(weights, norm)
