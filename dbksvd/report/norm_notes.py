"""Lines below tables on tokens that were left out for their norm, or that hold the variance."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dbksvd.activations.norm_notes import describe_norms
from dbksvd.base.files import read_json


def list_norm_notes(manifests: Iterable[str | Path]) -> list[str]:
    """Return what to say of the norms of shards, a line for each site that has something to say.

    Parameters
    ----------
    manifests : iterable of path
        Manifests of the shards, at ``<site>/shards/manifest.json``; those that are not there yet
        are passed over.
    """
    notes = []
    for path in sorted(map(Path, manifests)):
        if not path.is_file():
            continue
        left_out, warning = describe_norms(read_json(path))
        site = path.parent.parent.name
        if left_out:
            notes.append(f"{site}: {left_out}.")
        if warning:
            notes.append(f"Warning, {site}: {warning}.")
    return notes
