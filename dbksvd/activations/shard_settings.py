"""Settings of shards."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dbksvd.base.settings import Count, Seed, Settings


class ShardSettings(Settings):
    """How all rows are shuffled into shards."""

    rows_per_shard: Count = 50_000
    """Tokens in a shard; the last one of a split has the rest."""
    seed: Seed = 0
    """Decides the order."""
    outlier_norm_multiple: Annotated[float, Field(gt=1)] | None = None
    """Tokens whose norm exceeds this multiple of the median norm of the training tokens are left
    out and counted; null keeps all.
    """
