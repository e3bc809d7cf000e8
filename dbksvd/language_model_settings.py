"""Sizes of a small language model and of its training, checked."""

from __future__ import annotations

import string
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dbksvd.base.settings import (
    Count,
    DeviceName,
    Fraction,
    NonNegative,
    Positive,
    Seed,
    Settings,
    Text,
)

# SAEBench's absorption reads a fixed position before " A" to " Z": each must be one token.
LETTERS = [f" {letter}" for letter in string.ascii_uppercase]
SMALLEST_VOCABULARY = 256 + 2 + len(LETTERS)  # bytes, special tokens, letters


class FactSettings(Settings):
    """Facts that the model reads beside the text: a small model learns none from text."""

    data: Text
    """Folder with RAVEL's files in ``base/``."""
    repeats: Count
    """Documents of each entity."""


class LanguageModelSettings(Settings):
    """Sizes of the model and of its training."""

    tokens: Count = 5_000_000
    """Training tokens, counted each time they are used; those of ``experiments/small-lm.yaml``."""
    layers: Count = 4
    """Blocks."""
    width: Count = 256
    """Hidden size d; a multiple of `heads`."""
    heads: Count = 4
    """Attention heads."""
    vocabulary: Annotated[int, Field(ge=SMALLEST_VOCABULARY)] = 4096
    """Tokens of the byte-level BPE tokenizer, special ones counted."""
    max_positions: Count = 1024
    """Longest input in tokens; sae-probes feeds up to 1,024."""
    context_length: Annotated[int, Field(ge=2)] = 256
    """Tokens of a training sequence."""
    batch_size: Count = 16
    """Sequences of a step."""
    heldout_tokens: Count = 50_000
    """Most held-out tokens that the loss is measured on."""
    lr: Positive = 2e-3
    """Highest learning rate of AdamW; it warms up linearly, then falls to a tenth as a cosine."""
    warm_up: Fraction = 0.05
    """Fraction of the steps in which the learning rate rises."""
    weight_decay: NonNegative = 0.1
    """Weight decay of the matrices."""
    seed: Seed = 0
    """Decides weights and order."""
    measure_every: Count = 100
    """Steps between two measurements of the held-out loss."""
    checkpoint_seconds: NonNegative = 60.0
    """Seconds between two checkpoints."""
    device: DeviceName = "auto"
    """Where the model is trained; ``auto`` takes a GPU where the job has one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the matrix products in training: bfloat16 is twice as fast or more where the
    processor has instructions for it, several times slower where it has not; ``auto`` looks.
    Weights, softmax, loss and optimizer are float32 always.
    """
    facts: FactSettings | None = None
    """Facts that the model reads beside the text; RAVEL's eval needs some."""

    @model_validator(mode="after")
    def _check_sizes(self) -> LanguageModelSettings:
        if self.tokens < self.step_tokens:
            raise ValueError(f"tokens: expected at least {self.step_tokens}, got {self.tokens}")
        if self.max_positions < self.context_length:
            raise ValueError(
                f"max_positions: expected at least {self.context_length}, got {self.max_positions}"
            )
        if self.width % self.heads:
            raise ValueError(
                f"width: expected a multiple of heads = {self.heads}, got {self.width}"
            )
        return self

    @property
    def step_tokens(self) -> int:
        """Tokens of one step."""
        return self.batch_size * self.context_length

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.tokens // self.step_tokens
