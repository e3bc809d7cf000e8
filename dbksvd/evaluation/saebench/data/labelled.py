"""Labelled texts given to SAEBench: bundled ones, or its own from the hub, by ``data``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from dbksvd.evaluation.saebench.data.bundled import read_ag_news, read_crossed
from dbksvd.evaluation.saebench.data.hub_data import read_data_set
from dbksvd.evaluation.saebench.registry import reads_hub
from dbksvd.evaluation.saebench.shims import common as shims


def serve_topics(settings: Mapping[str, Any], *, is_recorded: bool) -> AbstractContextManager[None]:
    """Serve AG News or the hub's data sets; nothing where activations are recorded."""
    if reads_hub(settings):
        return shims.serve_hub(None if is_recorded else read_data_set)
    return shims.serve_ag_news(None if is_recorded else read_ag_news())


def serve_crossing(
    settings: Mapping[str, Any], *, is_recorded: bool
) -> AbstractContextManager[None]:
    """Serve reviews with two labels, or the hub's; nothing where activations are recorded."""
    if reads_hub(settings):
        return shims.serve_hub(None if is_recorded else read_data_set)
    return shims.serve_crossed(None if is_recorded else read_crossed())
