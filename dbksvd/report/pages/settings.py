"""Settings of the feature pages."""

from __future__ import annotations

from dbksvd.base.settings import Names, Settings
from dbksvd.features.settings import ExampleSettings


class PageSettings(Settings):
    """Section ``pages`` of a config: feature pages that open from disk."""

    dictionaries: Names | None = None
    """Dictionaries that have pages, each as ``method/m512-k16-s0``; null takes one of each method:
    its most atoms, the middle one of its k, its first seed.
    """
    examples: ExampleSettings = ExampleSettings()
    """What is collected of every atom."""
