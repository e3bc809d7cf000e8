"""A causal model cut in two at a site: below it is run once, above it for every change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dbksvd.evaluation.facts.prompts import Prompt, count_shared
from dbksvd.models.hooks import find_hook
from dbksvd.models.loading import LoadedModel
from dbksvd.models.skipped_blocks import SkippedBlocks


@dataclass(frozen=True)
class Recorded:
    """Prompts behind the tokens that all of them share, with what the model has at the site.

    Parameters
    ----------
    shared : int64 tensor of shape (p,)
        Tokens that all prompts begin with.
    ids : int64 tensor of shape (n, t)
        The tokens behind them, padded on the right.
    lengths, positions, answers : int64 tensors of shape (n,)
        Tokens of each row; place of the entity's last token in it; first token of the answer.
    activations : float32 tensor of shape (n, t, d)
        Output of the block at the site.
    """

    shared: Tensor
    ids: Tensor
    lengths: Tensor
    positions: Tensor
    answers: Tensor
    activations: Tensor

    def select(self, rows: Tensor) -> Recorded:
        """Return some of the prompts, without the padding that none of them needs."""
        longest = int(self.lengths[rows].max())
        return Recorded(
            self.shared,
            self.ids[rows, :longest],
            self.lengths[rows],
            self.positions[rows],
            self.answers[rows],
            self.activations[rows, :longest],
        )

    @property
    def entities(self) -> Tensor:
        """Activations (n, d) at the last token of each entity."""
        return self.activations[torch.arange(len(self.ids)), self.positions]


class CutModel:
    """A causal model whose blocks up to a site are not run again.

    Parameters
    ----------
    loaded : LoadedModel
        A causal model.
    layer : int
        Block whose output is the site, counted from 1.
    batch_size : int
        Prompts of a pass without gradients.
    """

    def __init__(self, loaded: LoadedModel, layer: int, batch_size: int = 16) -> None:
        self.model, self.device = loaded.model, loaded.device
        self.batch_size = batch_size
        self.blocks = [find_hook(loaded, each).module for each in range(1, layer + 1)]
        self._caches: dict[tuple[int, ...], Any] = {}
        self._skipped = SkippedBlocks(self.blocks, self._run_little)

    @torch.no_grad()
    def record(self, prompts: Sequence[Prompt]) -> tuple[Recorded, Tensor]:
        """Run prompts through the whole model.

        Parameters
        ----------
        prompts : sequence of Prompt
            Those of one template, one at least.

        Returns
        -------
        recorded : Recorded
            What :meth:`run_above` needs.
        predicted : int64 tensor of shape (n,)
            The token that the model puts behind each prompt.
        """
        start = count_shared(prompts)
        rests = [torch.tensor(prompt.ids[start:]) for prompt in prompts]
        shared = torch.tensor(prompts[0].ids[:start])
        ids = nn.utils.rnn.pad_sequence(rests, batch_first=True)
        lengths = torch.tensor([len(rest) for rest in rests])
        found: list[Tensor] = []
        predicted = []
        for rows in torch.arange(len(rests)).split(self.batch_size):
            cache = self._read(shared, len(rows))
            with _watch_output(self.blocks[-1], found.append):
                logits = self._run(cache, ids[rows], lengths[rows])
            predicted.append(logits.argmax(dim=1).cpu())
        recorded = Recorded(
            shared,
            ids,
            lengths,
            torch.tensor([prompt.position - start for prompt in prompts]),
            torch.tensor([prompt.answer for prompt in prompts]),
            torch.cat(found),
        )
        return recorded, torch.cat(predicted)

    def run_above(self, recorded: Recorded, changed: Tensor) -> Tensor:
        """Return the logits (n, V) behind prompts whose entity has other activations (n, d)."""
        rows = torch.arange(len(recorded.ids))
        activations = recorded.activations.to(self.device, changed.dtype)
        activations = activations.index_put((rows, recorded.positions), changed)
        cache = self._read(recorded.shared, len(rows))
        with self._skipped.skip(len(self.blocks), activations):
            return self._run(cache, recorded.ids, recorded.lengths)

    @torch.no_grad()
    def _run_little(self) -> None:
        self.model(input_ids=torch.ones(1, 1, dtype=torch.int64, device=self.device))

    def _run(self, cache: Any, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits (n, V) at the last token of each row (n, t) behind cached tokens."""
        rows = torch.arange(len(ids), device=self.device)
        ends = lengths.to(self.device) - 1

        def keep_ends(_head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (inputs[0][rows, ends][:, None], *inputs[1:])

        handle = self.model.get_output_embeddings().register_forward_pre_hook(keep_ends)
        try:
            output = self.model(input_ids=ids.to(self.device), past_key_values=cache)
        finally:
            handle.remove()
        return output.logits[:, 0].float()

    def _read(self, shared: Tensor, rows: int) -> Any:
        """Return keys and values of the shared tokens for some rows; None where there are none."""
        if not len(shared):
            return None
        key = tuple(shared.tolist())
        if key not in self._caches:
            with torch.no_grad():
                ids = shared[None].to(self.device)
                self._caches[key] = self.model(input_ids=ids, use_cache=True).past_key_values
        cache = copy.deepcopy(self._caches[key])
        cache.batch_repeat_interleave(rows)
        return cache


@contextmanager
def _watch_output(block: nn.Module, take: Callable[[Tensor], Any]) -> Iterator[None]:
    """Give what a block puts out, float32 and on the CPU, to `take`."""

    def watch(_block: nn.Module, _inputs: Any, output: Any) -> None:
        take((output[0] if isinstance(output, tuple) else output).float().cpu())

    handle = block.register_forward_hook(watch)
    try:
        yield
    finally:
        handle.remove()
