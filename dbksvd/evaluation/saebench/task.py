"""What an eval is given to score one dictionary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_lens import SAE

    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.models.loading import LoadedModel


@dataclass(frozen=True)
class EvalTask:
    """One dictionary and one eval.

    Parameters
    ----------
    sae : sae_lens.SAE
        From :func:`dbksvd.dictionaries.loading.load_sae`, its metadata naming the site.
    name : str
        Name of the dictionary in SAEBench's JSON.
    site : EvalSite
        Model, layer and seed.
    settings : Settings
        Settings of the eval, parsed: an instance of its entry's ``settings``.
    prepared : path
        What ``prepare`` wrote, only read.
    output : path
        An empty folder for SAEBench's JSON.
    load_model : callable
        Returns the model, for evals that run it with the dictionary inside.
    device : str
        Where the dictionary is.
    """

    sae: SAE[Any]
    name: str
    site: EvalSite
    settings: Any
    prepared: Path
    output: Path
    load_model: Callable[[], LoadedModel]
    device: str = "cpu"
