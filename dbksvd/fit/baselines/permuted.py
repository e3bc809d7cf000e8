"""The permuted decoder: an SAE whose latents fire as before and mean something else."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dbksvd.base.files import read_json, write_json
from dbksvd.base.layout import CONFIG_FILE, WEIGHTS_FILE
from dbksvd.dictionaries.dictionary import ARCHITECTURE, read_weights
from dbksvd.fit.task import FitResult, FitTask

# Their encoders are pursuits over the decoder's own rows.
PURSUITS = (ARCHITECTURE, "matching_pursuit")


@dataclass
class SavedWeights:
    """Config and weights of a dictionary in SAELens's layout."""

    config: dict[str, Any]
    weights: dict[str, Tensor]

    def save(self, path: str | Path) -> None:
        """Write ``cfg.json`` and safetensors."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_FILE, self.config)
        save_file(self.weights, folder / WEIGHTS_FILE)


def fit(task: FitTask) -> FitResult:
    """Permute the rows of the decoder of another fit of the experiment; its encoder stays.

    A score that hardly falls does not depend on what the latents stand for in the model: probes
    that see only latents score as before, reconstruction and interventions should not.

    There is no such control of DB-KSVD: a pursuit codes over the rows of the decoder, so that
    permuting them renames the atoms and changes nothing else.

    Parameters
    ----------
    task : FitTask
        ``base`` is the fit of the method that the setting ``of`` names; ``seed`` decides the
        permutation.

    Raises
    ------
    ValueError
        If the base's encoder is a pursuit.

    References
    ----------
    arXiv:2605.18229, which audits SAEBench with this control.
    """
    assert task.base is not None  # the workflow gives one for the setting `of`
    started = time.perf_counter()
    config = read_json(task.base / CONFIG_FILE)
    if config["architecture"] in PURSUITS:
        raise ValueError(
            "of: expected an SAE with an encoder of its own, since permuting the atoms of a pursuit"
            f" only renames them, got {task.settings['of']!r} ({config['architecture']})"
        )
    weights = read_weights(task.base / WEIGHTS_FILE, ("W_dec",))
    generator = torch.Generator().manual_seed(task.seed)
    order = torch.randperm(len(weights["W_dec"]), generator=generator)
    weights["W_dec"] = weights["W_dec"][order].contiguous()
    seconds = time.perf_counter() - started
    summary = {"seconds": seconds, "samples_seen": 0, "iterations": 0, "of": task.settings["of"]}
    log = [{"seconds": seconds, "samples_seen": 0}]
    return FitResult(SavedWeights(config, weights), log, "closed form", summary)
