"""SAEs of SAELens as fits write them. Imports no SAELens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbksvd.base.files import read_json, write_json


def write_sae(save: Callable[[str], tuple[Path, Path]], path: str | Path) -> None:
    """Write ``cfg.json`` and safetensors with SAELens's own call.

    SAELens orders the keys of a config by a set, so differently in every process: they are sorted.

    Parameters
    ----------
    save : callable
        ``save_model`` or ``save_inference_model`` of an SAE.
    path : path
        Folder.
    """
    _, config = save(str(path))
    write_json(config, dict(sorted(read_json(config).items())))


@dataclass
class SavableSAE:
    """Lets an inference SAE of SAELens write itself as every fit is written."""

    sae: Any

    def save(self, path: str | Path) -> None:
        """See :func:`write_sae`."""
        write_sae(self.sae.save_model, path)
