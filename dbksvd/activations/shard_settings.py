"""Settings of shards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dbksvd.base.settings import Count, Seed, Settings

NORM_MULTIPLE = 10.0
"""Multiple of the median norm over which a row counts as an outlier."""


class ShardSettings(Settings):
    """How all rows are shuffled into shards."""

    rows_per_shard: Count = 50_000
    """Tokens in a shard; the last one of a split has the rest."""
    seed: Seed = 0
    """Decides the order."""
    outlier_norm_multiple: Literal["auto"] | Annotated[float, Field(gt=1)] | None = "auto"
    """Tokens whose norm exceeds this multiple of the median norm of the training tokens, such as
    attention sinks, are left out and counted; evals leave them as they are. `auto` is 10 for a
    causal model, and keeps all tokens of others; null keeps all.
    """
