"""An SAE in training, measured on held-out samples as it would be saved now."""

from __future__ import annotations

from typing import Any

import torch
from sae_lens.saes.sae import SAE, TrainingSAE
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from dbksvd.base.shapes import Activations
from dbksvd.base.variance import ExplainedVariance
from dbksvd.dictionaries.decoding import decode_in

ROWS_PER_BLOCK = 512


def measure_heldout(trainer: SAETrainer[Any, Any], heldout: Activations) -> dict[str, float]:
    """Return variance explained and mean non-zeros of a trainer's SAE on samples (n, d)."""
    sae, scaler = make_inference_form(trainer.sae), trainer.activation_scaler
    variance = ExplainedVariance(heldout.shape[1], sae.device)
    active = 0.0
    with torch.no_grad():
        for rows in heldout.split(ROWS_PER_BLOCK):
            codes = sae.encode(scaler(rows.to(sae.device)))
            active += count_active(codes) * len(rows)
            variance.add(rows, scaler.unscale(decode_in(torch.float64, sae, codes)))
    return {"fve_heldout": variance.compute(), "l0": active / len(heldout)}


def make_inference_form(sae: TrainingSAE[Any]) -> SAE[Any]:
    """Return what ``save_inference_model`` and ``load_from_disk`` would give, without the disk."""
    weights = sae.state_dict()
    sae.process_state_dict_for_saving_inference(weights)
    devices = [sae.W_dec.device] if sae.W_dec.is_cuda else []
    with torch.random.fork_rng(devices):  # weights are drawn before they are loaded
        twin = SAE.from_dict(sae.cfg.get_inference_sae_cfg_dict())
    twin.load_state_dict(weights)
    return twin.eval()


def count_active(codes: Tensor) -> float:
    """Return mean non-zeros a sample of dense or sparse codes (n, m)."""
    values = codes.coalesce().values() if codes.is_sparse else codes
    return float(torch.count_nonzero(values)) / len(codes)
