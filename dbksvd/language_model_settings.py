"""Sizes of a small language model and of its training, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dbksvd.base.old_settings import check_at_least
from dbksvd.language_model_data import SMALLEST_VOCABULARY

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class LanguageModelSettings:
    """Sizes of the model and of its training.

    Parameters
    ----------
    layers, width, heads : int
        Blocks, hidden size d, attention heads.
    vocabulary : int
        Tokens of the byte-level BPE tokenizer, special ones counted.
    max_positions : int
        Longest input in tokens; sae-probes feeds up to 1,024.
    context_length : int
        Tokens of a training sequence.
    batch_size : int
        Sequences of a step.
    tokens : int
        Training tokens, counted each time they are used.
    heldout_tokens : int
        Most held-out tokens that the loss is measured on.
    lr : float
        Highest learning rate of AdamW; it warms up linearly, then falls to a tenth as a cosine.
    warm_up : float
        Fraction of the steps.
    weight_decay : float
        Of the weight matrices.
    seed : int
        Decides weights and order.
    measure_every : int
        Steps between two measurements of the held-out loss.
    checkpoint_seconds : float
        Seconds between two checkpoints.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    precision : str
        Of the matrix products in training: ``"float32"``, ``"bfloat16"`` (twice as fast or more
        where the processor has instructions for it, several times slower where it has not) or
        ``"auto"``, which looks. Weights, softmax, loss and optimizer are float32 always.
    facts : dict, optional
        ``data`` and ``repeats`` of :func:`dbksvd.facts.read_facts`: a model of this size learns
        no facts from text, and RAVEL's eval needs some.
    """

    tokens: int
    layers: int = 4
    width: int = 256
    heads: int = 4
    vocabulary: int = 4096
    max_positions: int = 1024
    context_length: int = 256
    batch_size: int = 16
    heldout_tokens: int = 50_000
    lr: float = 2e-3
    warm_up: float = 0.05
    weight_decay: float = 0.1
    seed: int = 0
    measure_every: int = 100
    checkpoint_seconds: float = 60.0
    device: str = "auto"
    precision: str = "auto"
    facts: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        counts = ("layers", "width", "heads", "batch_size", "heldout_tokens", "measure_every")
        check_at_least(1, "model.train", **{name: getattr(self, name) for name in counts})
        check_at_least(2, "model.train", context_length=self.context_length)
        check_at_least(self.step_tokens, "model.train", tokens=self.tokens)
        check_at_least(SMALLEST_VOCABULARY, "model.train", vocabulary=self.vocabulary)
        check_at_least(self.context_length, "model.train", max_positions=self.max_positions)
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"model.train.precision: expected one of {', '.join(PRECISIONS)}, "
                f"got {self.precision!r}"
            )
        if self.width % self.heads:
            raise ValueError(
                f"model.train.width: expected a multiple of heads = {self.heads}, got {self.width}"
            )

    @property
    def step_tokens(self) -> int:
        """Tokens of one step."""
        return self.batch_size * self.context_length

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.tokens // self.step_tokens
