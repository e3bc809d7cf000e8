"""What every fit is given, what it returns and how that is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from dbksvd.base.files import hash_file, read_json, write_json
from dbksvd.base.layout import CONFIG_FILE, LOG_FILE, SEAL_FILE, WEIGHTS_FILE
from dbksvd.base.saving import Folder
from dbksvd.dictionaries.encoder_flops import count_encoder_flops

if TYPE_CHECKING:
    import torch

    from dbksvd.activations.shards import ActivationShards
    from dbksvd.ops.ranks import Ranks


FIT_FOLDER = Folder(
    (CONFIG_FILE, WEIGHTS_FILE, LOG_FILE, SEAL_FILE), SEAL_FILE, ("encoder_flops", "sha256")
)


def _be_alone() -> Ranks:
    from dbksvd.ops.ranks import ALONE  # configs are checked with this module: no torch

    return ALONE


@dataclass
class FitTask:
    """Everything a method is given.

    Parameters
    ----------
    train, heldout : ActivationShards
        Activations to learn from and to measure on.
    n_atoms, k, seed : int
        Atoms of the dictionary, non-zeros a sample, seed of all randomness.
    settings : Settings
        The method's own settings, parsed: an instance of its entry's ``settings``.
    device : torch.device
        Where to compute.
    checkpoint : Path
        Folder for unfinished work; the caller removes it after success.
    metadata : dict
        Model, layer and context of the activations, to be kept in ``cfg.json``.
    bases : tuple of Path
        Dictionary folders of the fits that this one begins from, where the settings name their
        method.
    truth : Path, optional
        Folder of the generative model, for methods that need the truth.
    extraction : mapping, optional
        How the activations are extracted, as for :mod:`dbksvd.activations.from_text`, for methods
        that need the model.
    text : Path, optional
        Folder of the documents, for methods that need the model.
    gpus : int, optional
        GPUs given to this job; None where there is no scheduler.
    ranks : Ranks
        The processes that fit together; all have the same task.
    """

    train: ActivationShards
    heldout: ActivationShards
    n_atoms: int
    k: int
    seed: int
    settings: Any
    device: torch.device
    checkpoint: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    bases: tuple[Path, ...] = ()
    truth: Path | None = None
    extraction: Mapping[str, Any] | None = None
    text: Path | None = None
    gpus: int | None = None
    ranks: Ranks = field(default_factory=_be_alone)

    @property
    def base(self) -> Path | None:
        """The one fit that this one begins from; None where there is none."""
        if len(self.bases) > 1:
            raise ValueError(f"bases: expected at most one fit, got {len(self.bases)}")
        return self.bases[0] if self.bases else None


class Savable(Protocol):
    """A dictionary that can write itself in SAELens's layout."""

    def save(self, path: str | Path) -> None:
        """Write ``cfg.json`` and safetensors below `path`."""
        ...


@dataclass
class FitResult:
    """A fitted dictionary with the story of its fit.

    Parameters
    ----------
    dictionary : Savable
        What was learned.
    log : list of dict
        One row per iteration (DB-KSVD) or measurement (SAE). Every method logs at least
        ``samples_seen`` (samples), ``seconds`` (fit time so far, without held-out measurements)
        and ``fve_heldout`` (fraction of variance explained on held-out samples).
    stop_reason : str
        Why the fit ended.
    summary : dict
        Seconds, samples seen, implementation, settings, provenance; ``mean_k`` where samples have
        k non-zeros on average and the dictionary's k is the most.
    """

    dictionary: Savable
    log: list[dict[str, Any]]
    stop_reason: str
    summary: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write the dictionary, ``log.csv`` and the seal ``fit.json``, atomically.

        The seal also says what encoding a token costs (FLOPs) and holds the sha256 of each file.

        Raises
        ------
        ValueError
            If the folder holds other files, or a ``fit.json`` that is no seal.
        """
        with FIT_FOLDER.replace(path) as folder:
            self.dictionary.save(folder / "dictionary")
            hashes = {}
            for file in sorted((folder / "dictionary").iterdir()):
                hashes[file.name] = hash_file(file)
                file.rename(folder / file.name)
            (folder / "dictionary").rmdir()
            pd.DataFrame(self.log).to_csv(folder / LOG_FILE, index=False)
            seal = {
                **self.summary,
                "encoder_flops": self._count_flops(read_json(folder / CONFIG_FILE)),
                "stop_reason": self.stop_reason,
                "sha256": hashes,
            }
            write_json(folder / SEAL_FILE, seal)

    def _count_flops(self, cfg: dict[str, Any]) -> float:
        """Count with the mean number of picks where the config holds the most."""
        if "mean_k" in self.summary:
            cfg = cfg | {"k": self.summary["mean_k"]}
        return count_encoder_flops(cfg)


def charge(result: FitResult, bases: Sequence[Path]) -> FitResult:
    """Add what the fits that one began from have cost to its seconds and samples.

    Parameters
    ----------
    result : FitResult
        The fit, with its own costs; changed in place.
    bases : sequence of path
        Folders of the fits that it began from. A dictionary without a seal, which no fit of
        the workflow wrote, counts nothing.
    """
    seals = [read_json(base / SEAL_FILE) for base in bases if (base / SEAL_FILE).is_file()]
    for row in (*result.log, result.summary):
        for cost in ("seconds", "samples_seen"):
            row[cost] += sum(seal[cost] for seal in seals)
    return result
