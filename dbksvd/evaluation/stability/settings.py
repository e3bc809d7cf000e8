"""Settings of the measure of stability. Needs no torch."""

from __future__ import annotations

from dbksvd.base.settings import Count, Settings


class StabilitySettings(Settings):
    """How far dictionaries agree that differ in their seed only (docs/stability.md)."""

    rows: Count = 50_000
    """Held-out rows, from the first on, whose codes are compared; all if there are fewer."""
    draws: Count = 3
    """Pairs of random dictionaries, which tell what agreement is chance."""
