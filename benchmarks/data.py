"""What the benchmarks work on: activations on disk, or rows with a spectrum like theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dbksvd.activations.shards import ActivationShards
from dbksvd.base.variance import ExplainedVariance
from dbksvd.fit.ksvd.dbksvd import DBKSVD

SPLITS = ("train", "heldout")
DEFAULT_SHARDS = Path("results/minilm/layer4/shards")


class MemoryActivations:
    """Rows in memory that answer as ``ActivationShards`` does: every contestant reads these.

    Parameters
    ----------
    rows : tensor of shape (n, d)
        Samples.
    mean : tensor of shape (d,)
        Mean of the training rows, of both splits.
    """

    def __init__(self, rows: Tensor, mean: Tensor) -> None:
        self.rows, self.mean = rows, mean
        self.width = rows.shape[1]
        self.scale = float((rows - mean).square().mean().sqrt())

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows `start` to `stop`."""
        return self.rows[start:stop]


@dataclass
class Activations:
    """Training and held-out rows, and what they are in one word."""

    train: MemoryActivations
    heldout: MemoryActivations
    name: str


def load_activations(path: Path, *, rows: int | None, heldout_rows: int) -> Activations:
    """Read activations into memory.

    Parameters
    ----------
    path : Path
        Folder of shards, or of ``train.npy`` and ``heldout.npy``, both (rows, d).
    rows, heldout_rows : int
        At most so many rows, the first ones; None is all.

    Raises
    ------
    SystemExit
        If there is neither, in one line.
    """
    if (path / "manifest.json").is_file():
        splits = [ActivationShards.open(path, split, verify=False) for split in SPLITS]
        counts = [min(len(splits[0]), rows or len(splits[0])), min(len(splits[1]), heldout_rows)]
        train, heldout = (split.read(0, count) for split, count in zip(splits, counts, strict=True))
        name = f"{splits[0].manifest['model'].get('model')} layer {splits[0].describe()['layer']}"
    elif (path / "train.npy").is_file():
        train, heldout = (
            torch.from_numpy(np.load(path / f"{split}.npy", allow_pickle=False)[:count]).float()
            for split, count in zip(SPLITS, (rows, heldout_rows), strict=True)
        )
        name = path.name
    else:
        raise SystemExit(f"error: {path}: expected shards (`make run` makes them) or train.npy")
    mean = train.mean(dim=0)
    return Activations(MemoryActivations(train, mean), MemoryActivations(heldout, mean), name)


def make_sampler(d: int, device: torch.device | str, seed: int = 0) -> Callable[[int], Tensor]:
    """Return a function that draws n samples with a decaying spectrum, as activations have."""
    generator = torch.Generator(device=device).manual_seed(seed)
    spectrum = torch.arange(1, d + 1, device=device).float().pow(-0.5)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, device=device)).Q
    basis = spectrum[:, None] * rotation
    return lambda n: torch.randn(n, d, generator=generator, device=device) @ basis


def draw_data(
    n: int, d: int, m: int, device: torch.device | str = "cpu", seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return samples (n, d), and m unit atoms that are other samples of the same kind."""
    draw = make_sampler(d, device, seed)
    return draw(n), F.normalize(draw(m), dim=1)


def fit_atoms(train: MemoryActivations, m: int, k: int, iterations: int = 8) -> Tensor:
    """Return the atoms of a short DB-KSVD fit: a dictionary that is used, not a random one."""
    model = DBKSVD(m, k, max_iter=iterations, polish_iter=0, device="cpu")
    return model.fit(train).dictionary_.atoms


def explain_variance(x: Tensor, reconstruction: Tensor) -> float:
    """Return ``1 − Σ‖x − x̂‖² / Σ‖x − mean(x)‖²``, summed in float64."""
    variance = ExplainedVariance(x.shape[1], x.device)
    variance.add(x, reconstruction)
    return variance.compute()
