"""The model as sae-probes drives it: what it reads at the last position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dbksvd.evaluation.saebench.model import SAEBenchModel


class LastTextTokenModel(SAEBenchModel):
    """What sae-probes drives an encoder by: its last position reads the last token of the text.

    sae-probes probes the activation at the last position, which is a word in the causal models it
    was written for and ``[SEP]`` in an encoder. Dictionaries are fitted on text tokens only, so
    outputs are moved on by one position: the last one then holds the token before ``[SEP]``.
    """

    def run_with_cache(
        self, tokens: Tensor | Sequence[str], **kwargs: Any
    ) -> tuple[None, dict[str, Tensor]]:
        """As the base class, moved on by one position for an encoder."""
        _, cache = super().run_with_cache(tokens, **kwargs)
        if self.is_causal:
            return None, cache
        return None, {name: output.roll(1, dims=1) for name, output in cache.items()}
