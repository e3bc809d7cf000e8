"""The text sources: a name in the config (``kind``), and the module that holds its entry.

An entry is a :class:`dbksvd.text.sources.entry.Source`.
"""

from __future__ import annotations

from dbksvd.base.registry import find_entry
from dbksvd.text.sources.entry import Source

SOURCES = {
    "sae_probes": "dbksvd.text.sources.sae_probes:SOURCE",
    "hub": "dbksvd.text.sources.hub:SOURCE",
    "local_dataset": "dbksvd.text.sources.local_dataset:SOURCE",
    "file": "dbksvd.text.sources.file:SOURCE",
}


def find_text_source(kind: str) -> Source:
    """Return the entry of a kind of text source.

    Raises
    ------
    ValueError
        If no such kind is registered.
    """
    source: Source = find_entry(SOURCES, kind, "text.sources.kind")
    return source
