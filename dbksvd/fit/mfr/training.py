"""SAEs trained side by side: the loop and its state on disk."""

from __future__ import annotations

import math
import time
from contextlib import closing
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dbksvd.activations.source import fingerprint_source
from dbksvd.base.checkpoint_files import CHECKPOINT_FILE, read_content, write_content
from dbksvd.base.clock import read_clock
from dbksvd.base.variance import ExplainedVariance
from dbksvd.fit.adam_moments import dump_moments, take_moments
from dbksvd.fit.mfr.penalty import find_penalty, match_pairs, measure_imbalance, ramp
from dbksvd.fit.mfr.settings import MFRSettings, count_training_samples
from dbksvd.fit.mfr.tied_sae import SavableSAE, TiedSAE
from dbksvd.fit.sae.ahead import BatchesAhead
from dbksvd.fit.sae.batches import BatchStream
from dbksvd.fit.task import FitResult, FitTask
from dbksvd.ops.defaults import with_usual_defaults

SCALE_ROWS = 4096
MEASUREMENTS = 12
HELDOUT_BLOCK = 1024


class MFRLoop:
    """One training of several SAEs.

    Parameters
    ----------
    task : FitTask
        Data, sizes, seed, settings and folder of the checkpoint.
    """

    def __init__(self, task: FitTask) -> None:
        self.task = task
        self.settings: MFRSettings = task.settings
        batches = BatchStream(task.train, self.settings.batch_size, seed=task.seed)
        samples = count_training_samples(self.settings, task.n_atoms, task.k, len(task.train))
        self.n_steps = max(1, samples // batches.batch_size)
        self.batches = BatchesAhead(batches, task.device, self.n_steps)
        self.mean = task.train.mean.float().to(task.device) * self.settings.centre
        rows = task.train.read(0, min(SCALE_ROWS, len(task.train))).to(task.device) - self.mean
        self.scale = 1 / max(float(rows.double().square().mean().sqrt()), 1e-30)
        self.begun = 0
        self.saes = [self.begin() for _ in range(self.settings.n_saes)]
        self.matchings: list[Tensor] = []
        self.steps, self.seconds = 0, 0.0
        self.log: list[dict[str, Any]] = []

    def begin(self) -> TiedSAE:
        """Return an untrained SAE; each has a seed of its own."""
        seed = (self.task.seed * 1_000_003 + self.begun) % (1 << 63)
        self.begun += 1
        sizes = (self.task.n_atoms, self.task.train.width)
        return TiedSAE(*sizes, seed, self.settings.lr, self.task.device)

    def run(self) -> None:
        """Do all steps, from the checkpoint on if there is one."""
        self.restore()
        saved = time.perf_counter()
        every = max(1, self.n_steps // MEASUREMENTS)
        bar = tqdm(total=self.n_steps, initial=self.steps, desc="train MFR", mininterval=2)
        with bar, closing(self.batches):
            while self.steps < self.n_steps:
                started = read_clock(self.task.device)
                row = self.step()
                self.seconds += read_clock(self.task.device) - started
                bar.update()
                if self.steps % every == 0 or self.steps == self.n_steps:
                    self.log.append({**row, "seconds": self.seconds, **self.measure()})
                if time.perf_counter() - saved >= self.settings.checkpoint_seconds:
                    self.save()
                    saved = time.perf_counter()

    def step(self) -> dict[str, Any]:
        """Train all SAEs on one batch; return what the log says of it."""
        settings, k = self.settings, self.task.k
        x = self.take(self.batches.read(self.steps))
        if self.steps % settings.match_every == 0 or not self.matchings:
            self.matchings = match_pairs([sae.weight for sae in self.saes])
        latents = [sae.encode(x, k) for sae in self.saes]
        errors = [
            (sae.decode(z) - x).square().mean() for sae, z in zip(self.saes, latents, strict=True)
        ]
        penalty = find_penalty([sae.weight for sae in self.saes], self.matchings)
        # each SAE's loss has the penalty; a sum of all losses would give it n_saes times to each
        strength = settings.weight * ramp(self.steps, settings.ramp_steps)
        loss = torch.stack(errors).sum() + strength * penalty
        loss.backward()
        for sae in self.saes:
            sae.optimizer.param_groups[0]["lr"] = settings.lr * self.find_rate()
            sae.optimizer.step()
            sae.optimizer.zero_grad()
        self.steps += 1
        if not math.isfinite(float(loss.detach())):
            raise ValueError(
                f"lr: expected a rate at which training is stable, got {settings.lr}: the loss is "
                f"{float(loss.detach())} after {self.steps * len(x)} samples"
            )
        if self.steps % settings.ramp_steps == 0 and self.steps < self.n_steps * (
            1 - self.settings.lr_decay
        ):
            self.replace_unbalanced(latents)
        return {
            "iteration": self.steps,
            "samples_seen": self.steps * len(x),
            "loss": float(errors[0].detach()),
            "shared_cosine": 1 - float(penalty.detach()),
            "begun_anew": self.begun - settings.n_saes,
        }

    def replace_unbalanced(self, latents: list[Tensor]) -> None:
        """Begin those SAEs anew of which few atoms do all the work."""
        for place, z in enumerate(latents):
            imbalance = measure_imbalance((z != 0).sum(dim=0), len(z), self.task.k)
            if imbalance > self.settings.largest_imbalance:
                self.saes[place] = self.begin()
                self.matchings = []

    def find_rate(self) -> float:
        """Return the learning rate of the next step as a fraction of the largest."""
        rise = (self.steps + 1) / max(1, round(self.n_steps * self.settings.lr_warm_up))
        fall = (self.n_steps - self.steps) / max(1, round(self.n_steps * self.settings.lr_decay))
        return min(1.0, rise, fall)

    def take(self, rows: Tensor) -> Tensor:
        """Return samples (n, d) as the SAEs see them: centred, and of mean square 1."""
        return (rows.to(self.task.device) - self.mean) * self.scale

    def measure(self) -> dict[str, float]:
        """Return variance explained and L0 of the first SAE on held-out samples, as it is saved."""
        heldout, sae = self.task.heldout, self.saes[0]
        variance, active = ExplainedVariance(heldout.width, self.task.device), 0.0
        with torch.no_grad():
            for start in range(0, len(heldout), HELDOUT_BLOCK):
                rows = heldout.read(start, min(start + HELDOUT_BLOCK, len(heldout)))
                rows = rows.to(self.task.device)
                z = sae.encode(self.take(rows), self.task.k).clamp(min=0)
                active += float((z > 0).sum())
                variance.add(rows, sae.decode(z).double() / self.scale + self.mean.double())
        return {"fve_heldout": variance.compute("heldout"), "l0": active / len(heldout)}

    def identify(self) -> dict[str, Any]:
        """Return what a checkpoint must agree on to be used."""
        told = self.settings.model_dump(exclude={"checkpoint_seconds", "device"})
        return {
            "data": [fingerprint_source(self.task.train), fingerprint_source(self.task.heldout)],
            "settings": told,
            "sizes": [self.task.n_atoms, self.task.k],
            "seed": self.task.seed,
            "device": self.task.device.type,
        }

    def save(self) -> None:
        """Write a checkpoint: weights, moments and matchings of all SAEs."""
        tensors = {f"matching.{i}": places for i, places in enumerate(self.matchings)}
        for place, sae in enumerate(self.saes):
            tensors |= {f"{place}.weight": sae.weight, f"{place}.bias": sae.bias}
            tensors |= dump_moments(sae.optimizer, f"{place}.adam.")
        progress = {name: getattr(self, name) for name in ("steps", "seconds", "begun", "log")}
        content = {"identity": self.identify(), "progress": progress}
        write_content(self.task.checkpoint / CHECKPOINT_FILE, content, tensors)

    def restore(self) -> None:
        """Take up the checkpoint, if there is one of this training."""
        read = read_content(self.task.checkpoint / CHECKPOINT_FILE, self.identify())
        if read is None:
            return
        content, tensors = read
        vars(self).update(content["progress"])
        count = len([name for name in tensors if name.startswith("matching.")])
        self.matchings = [tensors[f"matching.{i}"].to(self.task.device) for i in range(count)]
        for place, sae in enumerate(self.saes):
            with torch.no_grad():
                sae.weight.copy_(tensors[f"{place}.weight"])
                sae.bias.copy_(tensors[f"{place}.bias"])
            told = take_moments(sae.optimizer, tensors, f"{place}.adam.")
            sae.optimizer.load_state_dict(told)


@with_usual_defaults
@torch.inference_mode(False)
@torch.enable_grad()
def train(task: FitTask) -> FitResult:
    """Train all SAEs; see :func:`dbksvd.fit.mfr.method.fit`."""
    loop = MFRLoop(task)
    loop.run()
    last = loop.log[-1]
    summary = {
        "seconds": last["seconds"],
        "samples_seen": last["samples_seen"],
        "iterations": last["iteration"],
        "implementation": "torch",
        "l0": last["l0"],
        "shared_cosine": last["shared_cosine"],
        "begun_anew": last["begun_anew"],
    }
    dictionary = SavableSAE(loop.saes[0], loop.mean, loop.scale, task)
    return FitResult(dictionary, loop.log, "samples", summary)
