"""Blocks of a model that are not run: each hands on what is known to come out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

# What a block gives beside its output, by block; None where it gives a bare tensor.
Rests = Sequence["tuple[None, ...] | None"]


def find_rests(
    blocks: Sequence[nn.Module], run: Callable[[], Any]
) -> list[tuple[None, ...] | None]:
    """Return what stands behind each block's output; None where it gives a bare tensor.

    Parameters
    ----------
    blocks : sequence of Module
        The blocks, in the order in which they run.
    run : callable
        Runs the model on any tokens.
    """
    found: list[tuple[None, ...] | None] = []

    def look(_block: nn.Module, _inputs: Any, output: Any) -> None:
        bare = isinstance(output, Tensor)
        found.append(None if bare else (None,) * (len(output) - 1))

    with ExitStack() as stack, torch.no_grad():
        for block in blocks:
            stack.callback(block.register_forward_hook(look).remove)
        run()
    return found


@contextmanager
def skip_blocks(blocks: Sequence[nn.Module], output: Tensor, rests: Rests) -> Iterator[None]:
    """Let blocks, the first of a model, hand on what they get, and the last of them `output`.

    Parameters
    ----------
    blocks : sequence of Module
        Those that are not run; none leaves the model as it is.
    output : floating tensor of shape (b, t, d)
        What comes out of the last one. Gradients pass through it.
    rests : sequence
        From :func:`find_rests`, of these blocks and perhaps more.
    """

    def replace(number: int) -> Callable[..., Any]:
        is_last = number == len(blocks) - 1

        def forward(*args: Any, **kwargs: Any) -> Any:
            state, rest = args[0] if args else kwargs["hidden_states"], rests[number]
            state = output.to(state.dtype) if is_last else state
            return state if rest is None else (state, *rest)

        return forward

    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            stack.enter_context(patch.object(block, "forward", replace(number)))
        yield
