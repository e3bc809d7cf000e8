"""Whether rows may be left out for their norm, as far as a config tells before any is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.base.local_files import expand_user
from dbksvd.models.sizes import find_kind

if TYPE_CHECKING:
    from workflow.config import ExperimentConfig


def may_leave_out_rows(config: ExperimentConfig) -> bool:
    """Return whether rows may be left out for their norm: not where the config excludes it.

    The answer must not change while an experiment runs, so that a model of the hub counts as
    unknown even where its files are on this machine already.
    """
    multiple, model = config.shards.outlier_norm_multiple, config.model
    if multiple != "auto":
        return multiple is not None
    if config.activations.source != "model" or model is None:
        return False
    is_here = model.name is None or expand_user(model.name).is_dir()
    return not (is_here and find_kind(model) == "encoder")
