"""One training of an SAE, from the task to what is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from sae_lens.saes.sae import TrainingSAE
from torch import Tensor

from dbksvd.fit.sae.configure import complete_settings, describe_settings
from dbksvd.fit.sae.trainer import SAELoop
from dbksvd.fit.savable import write_sae
from dbksvd.fit.task import FitResult, FitTask
from dbksvd.ops.defaults import with_usual_defaults


@dataclass
class SavableSAE:
    """Lets a SAELens training SAE write its inference form."""

    sae: TrainingSAE[Any]

    def save(self, path: str | Path) -> None:
        """See :func:`dbksvd.fit.savable.write_sae`."""
        write_sae(self.sae.save_inference_model, path)


@with_usual_defaults
@torch.inference_mode(False)
@torch.enable_grad()
def train(task: FitTask, start: Mapping[str, Tensor] | None = None) -> FitResult:
    """Train an SAE; see :func:`dbksvd.fit.sae.method.fit`.

    It begins with the weights `start` of a finished one, if they are given.
    """
    settings = complete_settings(task.settings, task.n_atoms, task.k, len(task.train))
    devices = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(task.seed)
        loop_class = SAELoop
        if settings.takes_pairs:
            assert settings.source is not None
            # by name: the fit of an SAE does not depend on it
            loop_class = import_module(settings.source).TranscoderLoop
        loop = loop_class(task, settings, start)
        loop.run()
    savable = SavableSAE(loop.finish())
    last = loop.log[-1]
    summary = {
        "seconds": last["seconds"],
        "samples_seen": last["samples_seen"],
        "iterations": last["iteration"],
        "implementation": f"sae_lens {settings.architecture}",
        "precision": loop.precision,
        "l0": last["l0"],
        "coefficient": last["coefficient"],
        "settings": describe_settings(settings),
    }
    return FitResult(savable, loop.log, loop.stop_reason, summary)
