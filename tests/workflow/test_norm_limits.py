"""Where preparations wait for the shards to say which rows are left out for their norm."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from workflow.caching import list_shards
from workflow.experiment import Experiment

TINY = yaml.safe_load((Path(__file__).parents[2] / "experiments/tiny.yaml").read_text())


@pytest.mark.parametrize(
    ("change", "waits"),
    [
        (dict, False),  # MiniLM, an encoder that is on this machine
        (lambda c: c["shards"].update(outlier_norm_multiple="auto"), False),
        (lambda c: c["shards"].update(outlier_norm_multiple=5), True),
        (lambda c: c.update(model={"name": "a/b", "revision": "main"}), True),
        (lambda c: c.update(model={"name": "a/b", "revision": "0f" * 20}), True),
        (
            lambda c: (
                c.update(model={"name": "a/b", "revision": "0f" * 20}),
                c["shards"].update(outlier_norm_multiple=None),
            ),
            False,
        ),
    ],
)
def test_only_pooled_evals_of_what_may_be_limited_wait(change: Any, waits: bool):
    config = copy.deepcopy(TINY)
    config["activations"]["layers"] = [1]
    change(config)
    experiment = Experiment(config)
    for name in (
        *("sparse_probing", "tpp", "scr", "sparse_probing_sae_probes"),
        "factual_knowledge",
    ):
        assert experiment.needs_norm_limit(name) == waits
    for name in ("core", "mdl", "token_matching", "ravel", "absorption"):
        assert not experiment.needs_norm_limit(name)
    assert (list_shards(experiment.config) == []) == waits
