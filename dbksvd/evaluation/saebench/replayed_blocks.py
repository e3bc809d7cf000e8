"""A forward pass that begins where activations are known: the blocks before are skipped."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from dbksvd.base.site import RESIDUAL
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel, name_hook
from dbksvd.models.skipped_blocks import SkippedBlocks

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
        self._skipped = SkippedBlocks(model.blocks, self._run_little)

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

    def run_at(self, tokens: Tensor, site: EvalSite, hidden: Tensor, below: Tensor) -> Tensor:
        """Return the logits of a pass in which a place inside a block gives what is known.

        Parameters
        ----------
        tokens : int64 tensor of shape (b, t)
            Rows of tokens.
        site : EvalSite
            The place.
        hidden : floating tensor of shape (b, t, d)
            What it gives; its block is run.
        below : floating tensor of shape (b, t, d)
            What the block reads: the blocks before are skipped.

        Returns
        -------
        float32 tensor of shape (b, t, vocabulary).
        """
        if site.place == RESIDUAL:
            return self.run(tokens, site.layer, hidden)
        hooks = [(site.hook, lambda _output, **_kwargs: hidden)]
        with self.skip(site.layer - 1 if self.skips else 0, below):
            return self.model.run_with_hooks(tokens, fwd_hooks=hooks, return_type="logits")

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

    def skip(self, layer: int, hidden: Tensor) -> AbstractContextManager[None]:
        """Let blocks 1 to `layer` give `hidden` (b, t, d) without running."""
        return self._skipped.skip(layer, hidden)

    def _run_little(self) -> None:
        self.model.run_with_hooks(torch.ones(1, 1, dtype=torch.int64), fwd_hooks=[])
