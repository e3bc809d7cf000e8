"""Forward passes that begin behind a block whose output is known: those before it are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn


class SkippedBlocks:
    """Lets the first blocks of a model hand on a known output, whatever its architecture.

    The model's own forward pass is used. What a block gives beside its output is None where it is
    skipped.

    Parameters
    ----------
    blocks : sequence of modules
        Blocks of the model, from the first on.
    run : callable
        Runs the model on a few tokens, without gradients: what blocks give beside their output is
        looked at in a pass over them.
    """

    def __init__(self, blocks: Sequence[nn.Module], run: Callable[[], Any]) -> None:
        self.blocks, self._run = blocks, run
        self._rests: list[tuple[None, ...] | None] | None = None

    @contextmanager
    def skip(self, count: int, hidden: Tensor) -> Iterator[None]:
        """Let the first `count` blocks give `hidden` (b, t, d) without running."""
        rests = self._find_rests()

        def hand_on(block: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                state = args[0] if args else kwargs["hidden_states"]
                output, rest = hidden.to(state.dtype), rests[block]
                return output if rest is None else (output, *rest)

            return forward

        with ExitStack() as stack:
            for block in range(count):
                module = self.blocks[block]
                stack.enter_context(patch.object(module, "forward", hand_on(block)))
            yield

    def _find_rests(self) -> list[tuple[None, ...] | None]:
        """Return what each block gives beside its output; None where it gives a bare tensor."""
        if self._rests is None:
            found: list[tuple[None, ...] | None] = []

            def look(_block: nn.Module, _inputs: Any, output: Any) -> None:
                bare = isinstance(output, Tensor)
                found.append(None if bare else (None,) * (len(output) - 1))

            with ExitStack() as stack:
                for block in self.blocks:
                    stack.callback(block.register_forward_hook(look).remove)
                self._run()
            self._rests = found
        return self._rests
