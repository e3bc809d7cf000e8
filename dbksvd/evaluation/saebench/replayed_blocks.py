"""A forward pass that begins behind a block whose output is known: those before it are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from dbksvd.evaluation.saebench.model import SAEBenchModel, name_hook

# Largest difference of logits at which two passes count as the same, relative to the largest logit.
TOLERANCE = 1e-3


class ReplayedBlocks:
    """Runs a causal model from a block's output on, whatever its architecture.

    The model's own forward pass is used. Blocks up to the known one are not run: each hands on the
    known output. A model whose later blocks read more of the earlier ones than their output is
    found by `check`, and is then run whole.

    Parameters
    ----------
    model : SAEBenchModel
        A causal model.
    skips : bool
        Whether blocks may be skipped, from `check`.
    """

    def __init__(self, model: SAEBenchModel, *, skips: bool = True) -> None:
        self.model = model
        self.skips = skips
        self.last = len(model.blocks)
        self._rests: list[tuple[Any, ...] | None] | None = None

    def run(self, tokens: Tensor, layer: int, hidden: Tensor) -> Tensor:
        """Return the logits of a pass in which a block gives what is known.

        Parameters
        ----------
        tokens : int64 tensor of shape (b, t)
            Rows of tokens.
        layer : int
            The block, counted from 1.
        hidden : floating tensor of shape (b, t, d)
            Its output.

        Returns
        -------
        float32 tensor of shape (b, t, vocabulary).
        """
        if not self.skips:
            hook = (name_hook(layer), lambda _output, **_kwargs: hidden)
            return self.model.run_with_hooks(tokens, fwd_hooks=[hook], return_type="logits")
        with self.skip(layer, hidden):
            return self.model.run_with_hooks(tokens, fwd_hooks=[], return_type="logits")

    def check(self, tokens: Tensor, known: dict[int, Tensor]) -> bool:
        """Return whether passes from known outputs give the logits of a whole pass.

        Parameters
        ----------
        tokens : int64 tensor of shape (b, t)
            Rows of tokens.
        known : dict of int to tensor of shape (b, t, d)
            Outputs of blocks in a whole pass over them, by number of the block; zero at padding,
            which is not compared.
        """
        whole = self.model.run_with_hooks(tokens, fwd_hooks=[], return_type="logits")
        near = TOLERANCE * float(whole.abs().max())
        return all(
            torch.allclose(whole[used], self.run(tokens, layer, hidden)[used], rtol=0, atol=near)
            for layer, hidden in known.items()
            for used in [(hidden != 0).any(dim=-1)]
        )

    @contextmanager
    def skip(self, layer: int, hidden: Tensor) -> Iterator[None]:
        """Let blocks 1 to `layer` give `hidden` (b, t, d) without running."""
        rests = self._find_rests()

        def hand_on(block: int) -> Any:
            def forward(*args: Any, **kwargs: Any) -> Any:
                state = args[0] if args else kwargs["hidden_states"]
                output, rest = hidden.to(state.dtype), rests[block]
                return output if rest is None else (output, *rest)

            return forward

        with ExitStack() as stack:
            for block in range(layer):
                module = self.model.blocks[block]
                stack.enter_context(patch.object(module, "forward", hand_on(block)))
            yield

    def _find_rests(self) -> list[tuple[Any, ...] | None]:
        """Return what each block gives beside its output; None where it gives a bare tensor."""
        if self._rests is None:
            found: list[tuple[Any, ...] | None] = []

            def look(_module: Any, _inputs: Any, output: Any) -> None:
                bare = isinstance(output, Tensor)
                found.append(None if bare else (None,) * (len(output) - 1))

            handles = [block.register_forward_hook(look) for block in self.model.blocks]
            try:
                self.model.run_with_hooks(torch.ones(1, 1, dtype=torch.int64), fwd_hooks=[])
            finally:
                for handle in handles:
                    handle.remove()
            self._rests = found
        return self._rests
