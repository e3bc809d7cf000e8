"""The permuted decoder: an SAE whose latents fire as before and mean something else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dbksvd.base.clock import read_clock
from dbksvd.base.files import read_json, write_json
from dbksvd.base.layout import CONFIG_FILE, WEIGHTS_FILE
from dbksvd.base.settings import Text
from dbksvd.base.work import FLOAT, Work
from dbksvd.fit.method import FitSizes, Method, MethodSettings

if TYPE_CHECKING:
    from torch import Tensor

    from dbksvd.fit.task import FitResult, FitTask

# SAEs whose encoder is a pursuit over the decoder's own rows.
PURSUITS = ("matching_pursuit",)


class PermutedSettings(MethodSettings):
    """An SAE of the experiment with the rows of its decoder permuted."""

    algorithm: Literal["permuted"] = "permuted"
    """The method's name in the registry."""
    of: Text
    """Name of the method that trains the SAE; it has an encoder of its own."""


def check_encoder(of: str, base: Any) -> None:
    """Refuse to permute the decoder of a pursuit: that renames its atoms and changes nothing.

    Parameters
    ----------
    of : str
        Name of the method whose decoder is permuted.
    base : Settings
        Settings of that method.

    Raises
    ------
    ValueError
        If the base is not an SAE with an encoder of its own.
    """
    if base.algorithm != "sae" or base.architecture in PURSUITS:
        raise ValueError(_refuse(repr(of)))


def _refuse(got: str) -> str:
    return (
        "of: expected an SAE with an encoder of its own, since permuting the atoms of a pursuit "
        f"only renames them, got {got}"
    )


@dataclass
class SavedWeights:
    """Config and weights of a dictionary in SAELens's layout."""

    config: dict[str, Any]
    weights: dict[str, Tensor]

    def save(self, path: str | Path) -> None:
        """Write ``cfg.json`` and safetensors."""
        from safetensors.torch import save_file

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
    import torch

    from dbksvd.dictionaries.saved import ARCHITECTURE, read_weights
    from dbksvd.fit.task import FitResult

    assert task.base is not None  # the workflow gives one for the setting `of`
    started = read_clock(task.device)
    config = read_json(task.base / CONFIG_FILE)
    if config["architecture"] in (ARCHITECTURE, *PURSUITS):
        raise ValueError(_refuse(f"{task.settings.of!r} ({config['architecture']})"))
    weights = read_weights(task.base / WEIGHTS_FILE, ("W_dec",))
    generator = torch.Generator().manual_seed(task.seed)
    order = torch.randperm(len(weights["W_dec"]), generator=generator)
    weights["W_dec"] = weights["W_dec"][order].contiguous()
    seconds = read_clock(task.device) - started
    summary = {"seconds": seconds, "samples_seen": 0, "iterations": 0, "of": task.settings.of}
    log = [{"seconds": seconds, "samples_seen": 0}]
    return FitResult(SavedWeights(config, weights), log, "closed form", summary)


def _plan(_settings: PermutedSettings, sizes: FitSizes) -> Work:
    weights = float(sizes.n_atoms * sizes.width)
    return Work(memory=3 * weights * FLOAT, disk=2 * weights * FLOAT)


METHOD = Method(
    settings=PermutedSettings,
    fit=fit,
    plan=_plan,
    coding=None,
    label=lambda _settings: "permuted decoder",
    is_control=True,
    find_base=lambda settings: ("of", settings.of),
)
