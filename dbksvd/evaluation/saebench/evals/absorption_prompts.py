"""Activations of absorption's test prompts, computed once: no dictionary changes the prompts.

SAEBench asks about each word that the probe on raw activations gets right, in a prompt with ten
solved examples drawn by the seed. That is the longest text of the eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dbksvd.base.files import read_json, write_json
from dbksvd.evaluation.saebench.model import SAEBenchModel
from dbksvd.models.loading import LoadedModel

PROMPTS, ACTIVATIONS = "prompts.json", "prompts.safetensors"


class RecordingModel(SAEBenchModel):
    """The model, which keeps the activation at one place of every prompt that it reads as text.

    Parameters
    ----------
    loaded, name
        As for the base class.
    position : int
        The place, counted from the end of a prompt (-1 is its last token).
    """

    def __init__(self, loaded: LoadedModel, name: str, position: int) -> None:
        super().__init__(loaded, name)
        self._position = position
        self._found: dict[str, Tensor] = {}

    def run_with_cache(
        self, tokens: Tensor | Sequence[str], **kwargs: Any
    ) -> tuple[None, dict[str, Tensor]]:
        """As the base class."""
        _, cache = super().run_with_cache(tokens, **kwargs)
        if not isinstance(tokens, Tensor):
            (output,) = cache.values()
            self._found |= zip(tokens, output[:, self._position].cpu(), strict=True)
        return None, cache

    def write(self, folder: Path) -> None:
        """Write the prompts and their activations (prompts, d), and forget them."""
        write_json(folder / PROMPTS, {"prompts": list(self._found)})
        rows = list(self._found.values())
        activations = torch.stack(rows) if rows else torch.zeros(0, self.cfg.d_model)
        save_file({"activations": activations}, folder / ACTIVATIONS)
        self._found.clear()

    def forget(self) -> None:
        """Forget what was read so far."""
        self._found.clear()


class ReplayingModel(SAEBenchModel):
    """The model, which looks up prompts that a `RecordingModel` wrote and runs all others.

    Parameters
    ----------
    loaded, name, position
        As for `RecordingModel`.
    folder : path
        Where that wrote to.
    """

    def __init__(self, loaded: LoadedModel, name: str, position: int, folder: Path) -> None:
        super().__init__(loaded, name)
        self._position = position
        prompts = read_json(folder / PROMPTS)["prompts"]
        self._places = {prompt: place for place, prompt in enumerate(prompts)}
        self._activations = load_file(folder / ACTIVATIONS, device=str(loaded.device))[
            "activations"
        ]

    def run_with_cache(
        self, tokens: Tensor | Sequence[str], *, names_filter: str | Sequence[str], **kwargs: Any
    ) -> tuple[None, dict[str, Tensor]]:
        """As the base class; of looked up prompts all other places are zero."""
        known = not isinstance(tokens, Tensor) and all(text in self._places for text in tokens)
        if not known:
            return super().run_with_cache(tokens, names_filter=names_filter, **kwargs)
        rows = self._activations[[self._places[str(text)] for text in tokens]]
        output = rows.new_zeros(len(rows), -self._position, rows.shape[1])
        output[:, 0] = rows
        names = [names_filter] if isinstance(names_filter, str) else names_filter
        return None, dict.fromkeys(names, output)
