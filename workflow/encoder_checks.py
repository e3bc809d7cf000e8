"""What a config says of encoders against what it says of methods and evals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dbksvd.activations.settings import EXPECTED_UNSEEN
from dbksvd.base.settings import SettingsError, suggest
from dbksvd.fit.registry import find_method

if TYPE_CHECKING:
    from workflow.config import ExperimentConfig

PROBING = "sparse_probing_sae_probes"


def check_encoders(config: ExperimentConfig) -> None:
    """Check the methods that the section names, and that what is probed can be.

    Raises
    ------
    SettingsError
        For the first that is wrong, in one line.
    """
    settings = config.encoders
    if settings is None:
        return
    for key in ("methods", "probing"):
        for name in getattr(settings, key) or ():
            if name not in config.methods:
                raise SettingsError(
                    f"encoders.{key}: expected names from methods"
                    f"{suggest(name, config.methods)}, got {name!r}"
                )
            own = config.methods[name]
            if find_method(own.algorithm).takes_pairs(own):
                raise SettingsError(
                    f"encoders.{key}: expected methods that reconstruct what they encode, got "
                    f"{name!r}"
                )
    if settings.probing and PROBING not in config.evaluation.list_evals():
        raise SettingsError(
            f"encoders.probing: expected [] without evaluation.evals.{PROBING}, whose texts the "
            f"probes read, got {settings.probing}"
        )
    _check_rows(config, settings.rows)


def _check_rows(config: ExperimentConfig, rows: int) -> None:
    """Check that enough of the coded samples can be expected to hold unseen pairs of features."""
    drawing = config.ground_truth or config.activations
    pairs = getattr(drawing, "held_out_pairs", None)
    if pairs is not None and rows * pairs.share < EXPECTED_UNSEEN:
        raise SettingsError(
            f"encoders.rows: expected at least {math.ceil(EXPECTED_UNSEEN / pairs.share)} samples, "
            f"so that {EXPECTED_UNSEEN} hold a pair of held_out_pairs, got {rows}"
        )
