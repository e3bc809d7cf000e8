"""A consensus of TopK SAEs: pooled encoders and decoders, trained on from there."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dbksvd.base.files import read_json
from dbksvd.base.layout import SEAL_FILE, WEIGHTS_FILE
from dbksvd.base.settings import parse
from dbksvd.dictionaries.saved import read_weights
from dbksvd.fit.consensus.pool import Pool, describe_pool, pool_atoms, take_groups
from dbksvd.fit.sae.configure import complete_settings
from dbksvd.fit.sae.settings import TopKSettings
from dbksvd.fit.sae.train import train
from dbksvd.fit.task import FitResult, FitTask

NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")
# Share of the method's own samples that the pooled SAE is trained on.
SHARE = 4


def fit_saes(task: FitTask) -> FitResult:
    """Pool trained SAEs and train on.

    Parameters
    ----------
    task : FitTask
        ``bases`` are folders of TopK SAEs with unit atoms, for samples in their own unit.
    """
    saes = [read_weights(base / WEIGHTS_FILE, NAMES) for base in task.bases]
    told = read_json(task.bases[0] / SEAL_FILE)["settings"]
    own = complete_settings(
        parse(TopKSettings, told), task.n_atoms, task.k, len(task.train)
    ).training_samples
    assert own is not None  # they are complete
    changes = {
        "training_samples": task.settings.training_samples or max(1, own // SHARE),
        "checkpoint_seconds": task.settings.checkpoint_seconds,
        "device": task.settings.device,
        **dict.fromkeys(("measure_every", "dead_window")),
    }
    settings = parse(TopKSettings, {**told, **changes})
    pool = pool_atoms([sae["W_dec"] for sae in saes], task.settings.merge_cosine, nonnegative=True)
    result = train(
        replace(task, settings=settings, bases=()), pool_weights(saes, pool, task.n_atoms)
    )
    result.summary |= describe_pool(task, pool)
    return result


def pool_weights(saes: list[dict[str, Tensor]], pool: Pool, n_atoms: int) -> dict[str, Tensor]:
    """Return the weights of an SAE whose latents are the groups that most SAEs have.

    A latent is the mean of its members: its atom, and its row and bias of the encoder.

    Parameters
    ----------
    saes : list of dict of tensors
        Weights by SAELens's names, with unit atoms.
    pool : Pool
        Their atoms, merged.
    n_atoms : int
        Latents to return.
    """
    atoms = [sae["W_dec"] for sae in saes]
    rows = pool.average(torch.cat([sae["W_enc"].T for sae in saes]).contiguous())
    biases = pool.average(torch.cat([sae["b_enc"] for sae in saes]))
    chosen = take_groups(pool, atoms, n_atoms)
    missing = n_atoms - len(rows)
    if missing > 0:  # as take_groups fills them
        rows = torch.cat([rows, chosen[len(rows) :]])
        biases = torch.cat([biases, biases.new_zeros(missing)])
    return {
        "W_enc": rows[:n_atoms].T.contiguous(),
        "b_enc": biases[:n_atoms].contiguous(),
        "W_dec": chosen,
        "b_dec": torch.stack([sae["b_dec"] for sae in saes]).mean(dim=0),
    }
