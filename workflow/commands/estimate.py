"""What an experiment costs before it is run: hours, disk and memory of each stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dbksvd.estimates.devices import DEVICES
from dbksvd.estimates.stages import estimate_stages
from dbksvd.estimates.table import format_assumptions, format_table
from dbksvd.models.sizes import find_sizes
from workflow.commands.loading import load_experiment
from workflow.pages import Pages


def estimate(configs: Sequence[Path], *, device: str = "all", as_json: bool = False) -> None:
    """Print a table for each device.

    Raises
    ------
    ValueError
        If no such device is known.
    """
    device = device.lower()
    if device not in (*DEVICES, "all"):
        raise ValueError(f"--device: expected {', '.join(DEVICES)} or all, got {device!r}")
    experiment = load_experiment(configs)
    config = experiment.config
    sizes = None if config.model is None else find_sizes(config.model)
    pages = Pages(experiment)
    paged = [fit for site in pages.sites for fit in pages.list_fits(site)]
    unscored = [fit for fit in experiment.made if fit not in experiment.fits]
    found = {}
    for name in DEVICES if device == "all" else [device]:
        one = DEVICES[name]
        kind = experiment.model_kind or "causal"
        stages = estimate_stages(config, experiment.fits, sizes, one, kind, paged, unscored)
        if as_json:
            found[name] = [asdict(stage) for stage in stages]
        else:
            print(f"{config.experiment} on one {one.name}\n\n{format_table(stages, one)}")
            print(f"\n{format_assumptions(one)}\n")
    if as_json:
        print(json.dumps(found))
