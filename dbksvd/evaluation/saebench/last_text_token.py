"""The model as sae-probes drives it: what it reads at the last position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dbksvd.evaluation.saebench.model import SAEBenchModel
from dbksvd.evaluation.saebench.shims.norm_limit import find_over
from dbksvd.models.loading import LoadedModel


class LastTextTokenModel(SAEBenchModel):
    """What sae-probes drives an encoder by: its last position reads the last token of the text.

    sae-probes probes the activation at the last position, which is a word in the causal models it
    was written for and ``[SEP]`` in an encoder. Dictionaries are fitted on text tokens only, so
    outputs are moved on by one position: the last one then holds the token before ``[SEP]``.
    Dictionaries are fitted on no position over the norm limit either: such a one shows the output
    of the last position before it that is under the limit.

    Parameters
    ----------
    loaded, name
        As for the base class.
    norm_limit : float, optional
        Largest norm that dictionaries were fitted on; by default any.
    """

    def __init__(self, loaded: LoadedModel, name: str, *, norm_limit: float | None = None) -> None:
        super().__init__(loaded, name)
        self.norm_limit = norm_limit

    def run_with_cache(
        self, tokens: Tensor | Sequence[str], **kwargs: Any
    ) -> tuple[None, dict[str, Tensor]]:
        """As the base class, moved on by one position for an encoder, and without outliers."""
        _, cache = super().run_with_cache(tokens, **kwargs)
        if self.norm_limit is not None:
            cache = {name: _fill_over(out, self.norm_limit) for name, out in cache.items()}
        if self.is_causal:
            return None, cache
        return None, {name: output.roll(1, dims=1) for name, output in cache.items()}


def _fill_over(output: Tensor, norm_limit: float) -> Tensor:
    """Return outputs (b, t, d) where positions over the limit repeat the last one under it.

    Those that have none before them are zero.
    """
    under = ~find_over(output, norm_limit)
    positions = torch.arange(output.shape[1], device=output.device)
    last = torch.where(under, positions, -1).cummax(dim=1).values
    filled = output[torch.arange(len(output), device=output.device)[:, None], last.clamp(min=0)]
    return filled * (last >= 0)[..., None]
