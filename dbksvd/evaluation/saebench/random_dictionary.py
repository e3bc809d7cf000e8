"""A dictionary that stands in where SAEBench computes a model's own data on the way to a score."""

from __future__ import annotations

from typing import Any

import sae_lens  # noqa: F401 - loads our architectures, one of which is imported below
import torch

from dbksvd.evaluation.saebench.model import EvalSite


def make_random_dictionary(width: int, n_atoms: int, site: EvalSite, device: str) -> Any:
    """Return an SAE of random atoms.

    Parameters
    ----------
    width : int
        Width d of the activations.
    n_atoms : int
        Atoms m.
    site : EvalSite
        Model and layer, written into the SAE's metadata.
    device : str
        Where it is put.
    """
    from dbksvd.dictionaries.pursuit_sae import PursuitSAE, PursuitSAEConfig

    sae = PursuitSAE(PursuitSAEConfig(d_in=width, d_sae=n_atoms, nonnegative=True))
    sae.W_dec.data = torch.nn.functional.normalize(
        torch.randn(n_atoms, width, dtype=torch.float32), dim=1
    )
    sae.cfg.metadata.model_name, sae.cfg.metadata.hook_name = site.model_name, site.hook
    sae.cfg.metadata.hook_layer = site.layer - 1
    return sae.to(device)
