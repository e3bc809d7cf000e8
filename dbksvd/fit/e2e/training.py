"""A dictionary trained on inside its model: the loop and its state on disk."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dbksvd.activations.source import fingerprint_source
from dbksvd.base.checkpoint_files import CHECKPOINT_FILE, read_content, write_content
from dbksvd.base.clock import read_clock
from dbksvd.base.files import hash_file
from dbksvd.base.layout import WEIGHTS_FILE
from dbksvd.base.splits import SPLITS
from dbksvd.base.variance import ExplainedVariance
from dbksvd.fit.adam_moments import dump_moments, take_moments
from dbksvd.fit.e2e.losses import differentiate_kl, find_log_probs, measure_downstream
from dbksvd.fit.e2e.measure import measure_cost
from dbksvd.fit.e2e.model_source import check_source, load_causal
from dbksvd.fit.e2e.settings import E2EDownstreamSettings
from dbksvd.fit.e2e.spliced_model import Original, SplicedModel
from dbksvd.fit.e2e.texts import read_batches
from dbksvd.fit.e2e.trained import load_trained
from dbksvd.fit.task import FitResult, FitTask, charge
from dbksvd.ops.defaults import with_usual_defaults

HELD_BYTES = 2**30  # of what the model has without the dictionary, kept from epoch to epoch
HELDOUT_ROWS = CALIBRATION_ROWS = 4096
LAST_RATE = 0.1  # of the largest
LARGEST = 1e15  # of weights; beyond, squares overflow

_logger = logging.getLogger(__name__)


class SplicedLoop:
    """One training.

    Parameters
    ----------
    task : FitTask
        With the model and the documents.

    Raises
    ------
    ValueError
        If the model is not causal, the site is not behind one of its blocks, the text is too short
        or not that of the activations, or the dictionary is of another place.
    """

    def __init__(self, task: FitTask) -> None:
        self.task, self.settings = task, task.settings
        assert task.base is not None  # the workflow gives one for the setting `of`
        loaded, extraction, text = load_causal(task)
        self.text_sha256 = check_source(task, loaded, text)
        layer = extraction.layer or 0
        if isinstance(self.settings, E2EDownstreamSettings) and layer == loaded.n_layers:
            raise ValueError(
                f"activations.layers: expected a layer before the last, {loaded.n_layers}, for "
                f"e2e_downstream, got {layer}"
            )
        self.model = SplicedModel(loaded, layer, task.train.norm_limit)
        self.batches, self.heldout_batches = (
            read_batches(
                loaded,
                text,
                split,
                getattr(self.settings, key),
                key=f"methods: {key}",
                context_length=extraction.context_length,
                batch_tokens=self.settings.batch_tokens,
            )
            for split, key in zip(SPLITS, ("training_tokens", "heldout_tokens"), strict=True)
        )
        self.n_steps = len(self.batches) * self.settings.epochs
        self.trained = load_trained(task.base, task.train.width, task.metadata, task.device)
        weights = [weight for weight in self.trained.weights.values() if weight.requires_grad]
        self.optimizer = torch.optim.Adam(weights, lr=self.settings.lr)
        self.held: dict[int, tuple[Original, list[Tensor]]] = {}
        self.held_bytes = 0
        self.steps, self.samples, self.seconds = 0, 0, 0.0
        self.log: list[dict[str, Any]] = []

    def run(self) -> None:
        """Do all steps, from the checkpoint on if there is one."""
        self.restore()
        saved = time.perf_counter()
        if not self.log:
            self.log.append(self.measure())
        with tqdm(total=self.n_steps, initial=self.steps, desc="train e2e", mininterval=2) as bar:
            while self.steps < self.n_steps:
                started = read_clock(self.task.device)
                told = self.step()
                self.seconds += read_clock(self.task.device) - started
                bar.update()
                bar.set_postfix(told, refresh=False)
                if time.perf_counter() - saved >= self.settings.checkpoint_seconds:
                    self.save()
                    saved = time.perf_counter()

    def step(self) -> dict[str, float]:
        """Train on one batch; return its losses."""
        settings, place = self.settings, self.find_batch(self.steps)
        batch = self.batches[place]
        original, log_probs = self.read(place)
        self.steps += 1
        rows = original.site[original.spliced]
        if not len(rows):
            return {}
        self.samples += len(rows)
        found, _ = self.trained.reconstruct(rows)
        later = self.model.run_above(batch, original, found)
        kl, gradient = differentiate_kl(self.model, original.later[-1], later[-1], log_probs)
        # a plane with KL's gradient, so that all losses go back through the blocks together
        loss = settings.kl_weight * (later[-1] * gradient).sum()
        told = {"kl": kl}
        if isinstance(settings, E2EDownstreamSettings):
            downstream = measure_downstream(original.later, later)
            loss = loss + settings.downstream_weight * downstream
            told["downstream"] = float(downstream.detach())
        loss.backward()
        largest = self._descend()
        if not all(map(math.isfinite, told.values())) or not largest < LARGEST:
            raise ValueError(
                f"lr: expected a rate at which training is stable, got {settings.lr}: the losses "
                f"are {told} after {self.samples} tokens"
            )
        return told

    def _descend(self) -> float:
        """Take one step of Adam along the gradients; return the largest weight behind it."""
        group = self.optimizer.param_groups[0]
        torch.nn.utils.clip_grad_norm_(group["params"], self.settings.clip)
        group["lr"] = self.settings.lr * self.find_rate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        largest = max(float(weight.detach().abs().max()) for weight in group["params"])
        self.trained.settle_()
        return largest

    def find_batch(self, step: int) -> int:
        """Return the number of the batch of a step: all in each epoch, in a new order."""
        epoch, place = divmod(step, len(self.batches))
        order = np.random.default_rng([self.task.seed, epoch]).permutation(len(self.batches))
        return int(order[place])

    def find_rate(self) -> float:
        """Return the learning rate of the current step, from 1, as a fraction of the largest."""
        warm = round(self.n_steps * self.settings.lr_warm_up)
        if self.steps <= warm:
            return self.steps / warm
        done = (self.steps - warm - 1) / max(1, self.n_steps - warm)
        return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))

    def read(self, place: int) -> tuple[Original, list[Tensor] | None]:
        """Return what the model has without the dictionary: made once, while memory lasts.

        Of batches beyond `HELD_BYTES` the model runs whole again in each epoch.
        """
        if place in self.held:
            return self.held[place]
        original = self.model.read(self.batches[place])
        if self.settings.epochs == 1:
            return original, None
        size = original.count_bytes()
        if self.held_bytes + size > HELD_BYTES:
            return original, None
        log_probs = find_log_probs(self.model, original.later[-1])
        size += sum(part.numel() * part.element_size() for part in log_probs)
        if self.held_bytes + size <= HELD_BYTES:
            self.held[place] = original, log_probs
            self.held_bytes += size
        return original, log_probs

    def finish(self) -> FitResult:
        """Return the trained dictionary, measured as it is saved."""
        first = self.log[0]
        rows = self.task.train.read(0, min(CALIBRATION_ROWS, len(self.task.train)))
        started = read_clock(self.task.device)
        savable = self.trained.finish(rows.to(self.task.device), first["l0"])
        self.seconds += read_clock(self.task.device) - started
        last = self.measure()
        told = {"ce_loss": "ce_loss", "kl": "kl", "l0": "l0", "fve": "fve_heldout"}
        summary = {
            "seconds": self.seconds,
            "samples_seen": self.samples,
            "iterations": self.steps,
            "implementation": "torch",
            "of": self.settings.of,
            "ce_loss_original": last["ce_loss_original"],
            **{f"{name}_before": first[column] for name, column in told.items()},
            **{f"{name}_after": last[column] for name, column in told.items()},
        }
        if getattr(getattr(self.trained, "settings", None), "threshold", 0) > 0:
            summary["mean_k"] = self.task.k
        return FitResult(savable, [first, last], "samples", summary)

    def measure(self) -> dict[str, Any]:
        """Return a row of the log: the dictionary as it is now, on held-out text and samples."""
        dictionary, heldout = self.trained.freeze(), self.task.heldout
        rows = heldout.read(0, min(HELDOUT_ROWS, len(heldout))).to(self.task.device)
        variance = ExplainedVariance(heldout.width, self.task.device)
        codes = dictionary.encode(rows)
        variance.add(rows, dictionary.decode(codes, torch.float64))
        return {
            "iteration": self.steps,
            "samples_seen": self.samples,
            "seconds": self.seconds,
            **measure_cost(self.model, self.heldout_batches, dictionary),
            "l0": float(codes.l0.double().mean()),
            "fve_heldout": variance.compute("heldout"),
        }

    def identify(self) -> dict[str, Any]:
        """Return what a checkpoint must agree on to be used."""
        told = self.settings.dump()
        for name in ("checkpoint_seconds", "device"):
            del told[name]
        return {
            "data": [fingerprint_source(self.task.train), fingerprint_source(self.task.heldout)],
            "text": self.text_sha256,
            "start": self.start,
            "settings": told,
            "sizes": [self.task.n_atoms, self.task.k],
            "seed": self.task.seed,
            "device": self.task.device.type,
        }

    @property
    def start(self) -> str:
        """The hash of the dictionary that is trained on."""
        assert self.task.base is not None
        return hash_file(self.task.base / WEIGHTS_FILE)

    def save(self) -> None:
        """Write a checkpoint: weights and moments."""
        tensors = {**self.trained.weights, **dump_moments(self.optimizer)}
        progress = {name: getattr(self, name) for name in ("steps", "samples", "seconds", "log")}
        content = {"identity": self.identify(), "progress": progress}
        write_content(self.task.checkpoint / CHECKPOINT_FILE, content, tensors)

    def restore(self) -> None:
        """Take up the checkpoint, if there is one of this training."""
        read = read_content(self.task.checkpoint / CHECKPOINT_FILE, self.identify())
        if read is None:
            return
        content, tensors = read
        vars(self).update(content["progress"])
        with torch.no_grad():
            for name, weight in self.trained.weights.items():
                weight.copy_(tensors[name])
        self.optimizer.load_state_dict(take_moments(self.optimizer, tensors))
        _logger.info("going on after %d steps", self.steps)


@with_usual_defaults
@torch.inference_mode(False)
@torch.enable_grad()
def train(task: FitTask) -> FitResult:
    """Train a dictionary on; see :func:`dbksvd.fit.e2e.method.fit`."""
    devices = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(task.seed)
        loop = SplicedLoop(task)
        loop.run()
        result = loop.finish()
    return charge(result, task.bases)
