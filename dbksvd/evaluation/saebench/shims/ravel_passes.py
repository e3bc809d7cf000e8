"""Passes of ravel over prompts, shortened: what is above the site, and each prompt once.

For each pair and epoch SAEBench runs the whole model over the source prompt, whose activation at
the site is all that it reads, and over the base prompt, of which the blocks up to the site give the
same each time. It then reads the logits at the last token alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from dbksvd.evaluation.saebench.model import SAEBenchModel, name_hook
from dbksvd.evaluation.saebench.replayed_blocks import ReplayedBlocks
from dbksvd.models.hooks import HookPoint, run_to_hook
from dbksvd.models.loading import LoadedModel

EXAMPLE = "The city of Paris lies in the country of"
MAX_BYTES = 2**30  # of activations that are kept for the next epoch


class _Prompts:
    """Activations at the site of batches of prompts, computed once."""

    def __init__(self, loaded: LoadedModel, hook: HookPoint) -> None:
        self._loaded, self._hook = loaded, hook
        self._known: dict[bytes, Tensor] = {}
        self._bytes = 0

    def read(self, inputs: Any) -> Tensor:
        """Return the activations (b, t, d) of ``input_ids`` and ``attention_mask`` (b, t)."""
        arguments = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        key = b"".join(each.cpu().numpy().tobytes() for each in arguments.values())
        if key not in self._known:
            found = run_to_hook(self._loaded, self._hook, arguments).clone()
            self._bytes += found.numel() * found.element_size()
            if self._bytes > MAX_BYTES:
                return found
            self._known[key] = found
        return self._known[key]


@contextmanager
def shorten_passes(loaded: LoadedModel, model: SAEBenchModel, layer: int) -> Iterator[None]:
    """Let ravel train its masks on the blocks above the site; numbers stay as they are.

    Parameters
    ----------
    loaded, model : LoadedModel, SAEBenchModel
        The model, twice.
    layer : int
        The block whose output is the site, counted from 1.
    """
    from sae_bench.evals.ravel.mdbm import MDBM
    from sae_bench.sae_bench_utils import activation_collection

    block = model.blocks[layer - 1]
    prompts = _Prompts(loaded, HookPoint(block, takes_input=False, name=f"layer {layer}"))
    blocks = ReplayedBlocks(model)
    tokens, name = model.to_tokens(EXAMPLE), name_hook(layer)
    _, cache = model.run_with_cache(tokens, names_filter=name)
    skips = blocks.check(tokens, {layer: cache[name]})
    takes_last = "logits_to_keep" in inspect.signature(model.model.forward).parameters

    def get_layer_activations(_model: Any, _layer: int, inputs: Any, positions: Tensor) -> Tensor:
        activations = prompts.read(inputs)
        return activations[torch.arange(len(activations)), positions].clone()

    def forward(
        self: Any,
        base: Any,
        source: Any,
        base_positions: Tensor,
        source_positions: Tensor,
        training_mode: bool = False,
    ) -> tuple[Tensor, list[str]]:
        with torch.no_grad():
            changed_to = get_layer_activations(None, layer, source, source_positions)
        known = prompts.read(base).clone() if skips else None  # before the hook changes the site
        hook = self.create_intervention_hook(changed_to, base_positions, training_mode)
        handle = activation_collection.get_module(self.model, layer - 1).register_forward_hook(hook)
        try:
            with ExitStack() as stack:
                if known is not None:
                    stack.enter_context(blocks.skip(layer, known))
                logits = self.model(
                    input_ids=base["input_ids"],
                    attention_mask=base["attention_mask"],
                    **({"logits_to_keep": 1} if takes_last else {}),
                ).logits[:, -1, :]
        finally:
            handle.remove()
        return logits, []  # the text that SAEBench makes of it is read by nothing

    with (
        patch.object(activation_collection, "get_layer_activations", get_layer_activations),
        patch.object(MDBM, "forward", forward),
    ):
        yield
