"""A frozen causal model with a dictionary inside: what it gives with and without it."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dbksvd.activations.norms import measure_norms
from dbksvd.fit.e2e.texts import TokenBatch
from dbksvd.models.hooks import find_hook
from dbksvd.models.loading import LoadedModel
from dbksvd.models.skipped_blocks import SkippedBlocks


class _EndError(Exception):
    """Ends a forward pass behind the last block."""


@dataclass(frozen=True)
class Original:
    """What the model has without a dictionary, over one batch.

    Parameters
    ----------
    site : float32 tensor of shape (b, t, d)
        Output of the block at the site.
    later : tuple of float32 tensors of shape (n, d)
        Outputs of the blocks behind it at the places that are spliced; the last is the last
        block's, or the site's where that is the last block.
    spliced : bool tensor of shape (b, t)
        Places that a dictionary reconstructs: text, and not over the norm limit.
    """

    site: Tensor
    later: tuple[Tensor, ...]
    spliced: Tensor

    def count_bytes(self) -> int:
        """Return what it takes in memory."""
        return sum(part.numel() * part.element_size() for part in (self.site, *self.later))


class SplicedModel:
    """Runs a causal model whole, or from a site on, with gradients back to the site.

    Parameters
    ----------
    loaded : LoadedModel
        A causal model; its weights stay as they are.
    layer : int
        Block whose output is the site, counted from 1.
    norm_limit : float or None
        Places with a larger norm are left as they are, since no dictionary was fitted on them.
    """

    def __init__(self, loaded: LoadedModel, layer: int, norm_limit: float | None) -> None:
        self.model, self.device = loaded.model, loaded.device
        self.layer, self.norm_limit = layer, norm_limit
        self.blocks = [find_hook(loaded, each).module for each in range(1, loaded.n_layers + 1)]
        self._skipped = SkippedBlocks(self.blocks, self._run_little)

    @torch.no_grad()
    def read(self, batch: TokenBatch) -> Original:
        """Run the model as it is."""
        site, *later = self._run_blocks(batch.ids, self.layer)
        norms = measure_norms(site.flatten(0, 1).cpu().numpy()).reshape(site.shape[:2])
        spliced = batch.is_text.clone()
        if self.norm_limit is not None:
            spliced &= torch.from_numpy(norms <= self.norm_limit)
        spliced = spliced.to(self.device)
        return Original(site, tuple(each[spliced] for each in later or [site]), spliced)

    def run_above(self, batch: TokenBatch, original: Original, found: Tensor) -> list[Tensor]:
        """Return the outputs (n, d) of later blocks where a dictionary's takes the site's place.

        Parameters
        ----------
        batch : TokenBatch
            The tokens.
        original : Original
            What the model has there.
        found : tensor of shape (n, d)
            Reconstructions of the places that are spliced; gradients flow to them.
        """
        hidden = original.site.masked_scatter(original.spliced[..., None], found)
        with self._skipped.skip(self.layer, hidden):
            later = self._run_blocks(batch.ids, self.layer + 1)
        return [each[original.spliced] for each in later or [hidden]]

    def find_logits(self, final: Tensor) -> Tensor:
        """Return the logits (n, V), float32, behind outputs (n, d) of the last block.

        The model's own code runs behind its last block: norm, head, and what else it may do.
        """
        with self._skipped.skip(len(self.blocks), final[:, None]):
            ids = torch.zeros(len(final), 1, dtype=torch.int64, device=self.device)
            logits = self.model(input_ids=ids, use_cache=False).logits[:, 0]
        return logits if logits.dtype == torch.float64 else logits.float()

    def _run_blocks(self, ids: Tensor, first: int) -> list[Tensor]:
        """Return the outputs of block `first`, counted from 1, and all behind it."""
        found: list[Tensor] = []

        def keep(_block: nn.Module, _inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, (tuple, list)) else output
            found.append(output if output.dtype == torch.float64 else output.float())

        def end(*_args: Any) -> None:
            raise _EndError

        with ExitStack() as stack:
            for block in self.blocks[first - 1 :]:
                stack.callback(block.register_forward_hook(keep).remove)
            stack.callback(self.blocks[-1].register_forward_hook(end).remove)
            stack.enter_context(suppress(_EndError))
            # padding on the right: no token sees it
            self.model(input_ids=ids.to(self.device), use_cache=False)
        return found

    @torch.no_grad()
    def _run_little(self) -> None:
        self.model(
            input_ids=torch.ones(1, 1, dtype=torch.int64, device=self.device), use_cache=False
        )
