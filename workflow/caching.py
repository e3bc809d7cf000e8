"""Which results may be shared between working copies, and under which names.

Snakemake finds a cached result by the rule's command, its params and what its inputs were made
from. It knows nothing of wildcards, which is why the rules repeat theirs in params, and nothing of
files that a job reads by name: an experiment that has such files is not cached.
"""

from __future__ import annotations

from itertools import chain
from math import ceil
from typing import TYPE_CHECKING

from dbksvd.text.sources.registry import find_text_source
from workflow.norm_limits import may_leave_out_rows

if TYPE_CHECKING:
    from workflow.config import ExperimentConfig


def can_share_activations(config: ExperimentConfig) -> bool:
    """Return whether the config names every byte that activations are made from.

    Not so for local files of text, activations or weights, whose content is not in the config, and
    for a branch or tag of a hub, which may move.
    """
    source = config.activations.source
    if source != "model":
        return source == "synthetic"
    assert config.model is not None
    assert config.text is not None
    return config.model.is_fixed and all(
        find_text_source(text.kind).is_fixed(text) for text in config.text.sources
    )


def list_shards(config: ExperimentConfig) -> list[str]:
    """Return the names of all shards, without ``.h5``; none where they cannot be known before.

    They cannot where outliers are masked, since only the data say how many tokens are left, nor
    where sites of one experiment have different numbers of them.
    """
    if may_leave_out_rows(config):
        return []
    sections = [config.activations, config.ground_truth]
    counts = {
        (section.n_train_tokens, section.n_heldout_tokens)
        for section in sections
        if section is not None
    }
    if len(counts) > 1:
        return []
    names = (
        (f"{split}-{shard:05d}" for shard in range(ceil(rows / config.shards.rows_per_shard)))
        for split, rows in zip(("train", "heldout"), next(iter(counts)), strict=True)
    )
    return list(chain.from_iterable(names))
