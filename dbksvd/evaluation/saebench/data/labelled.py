"""Labelled texts given to SAEBench: bundled ones, or its own from the hub, by ``data``."""

from __future__ import annotations

from contextlib import AbstractContextManager

from dbksvd.evaluation.saebench.data.bundled import read_ag_news, read_crossed
from dbksvd.evaluation.saebench.data.hub_data import read_data_set
from dbksvd.evaluation.saebench.data.names import HUB
from dbksvd.evaluation.saebench.data.settings import LabelledSettings
from dbksvd.evaluation.saebench.shims import common


def serve_topics(settings: LabelledSettings, *, is_prepared: bool) -> AbstractContextManager[None]:
    """Serve AG News or the hub's data sets; no text at all where activations are prepared."""
    if settings.data == HUB:
        return common.serve_hub(None if is_prepared else read_data_set)
    return common.serve_ag_news(None if is_prepared else read_ag_news())


def serve_crossing(
    settings: LabelledSettings, *, is_prepared: bool
) -> AbstractContextManager[None]:
    """Serve reviews with two labels, or the hub's; no text where activations are prepared."""
    if settings.data == HUB:
        return common.serve_hub(None if is_prepared else read_data_set)
    return common.serve_crossed(None if is_prepared else read_crossed())
