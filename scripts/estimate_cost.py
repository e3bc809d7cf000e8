"""Print what an experiment costs before it is run: hours, disk and memory of each stage."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dbksvd.base.errors import report_errors
from dbksvd.base.settings import SettingsError
from dbksvd.estimates.devices import DEVICES
from dbksvd.estimates.stages import estimate_stages
from dbksvd.estimates.table import format_assumptions, format_table
from dbksvd.models.sizes import find_sizes
from workflow.experiment import Experiment
from workflow.layers import read_layers
from workflow.pages import Pages


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="+", help="a later one lies over the earlier")
    parser.add_argument("--device", choices=[*DEVICES, "all"], default="all")
    arguments = parser.parse_args()

    try:
        experiment = Experiment(read_layers(arguments.config, {}))
    except SettingsError as error:
        sys.exit(error.tell("error: config"))
    config = experiment.config
    sizes = None if config.model is None else find_sizes(config.model)
    pages = Pages(experiment)
    paged = [fit for site in pages.sites for fit in pages.list_fits(site)]
    for name in DEVICES if arguments.device == "all" else [arguments.device]:
        device = DEVICES[name]
        stages = estimate_stages(
            *(config, experiment.fits, sizes, device, experiment.model_kind or "causal", paged),
            unscored=[fit for fit in experiment.made if fit not in experiment.fits],
        )
        print(f"{config.experiment} on one {device.name}\n")
        print(format_table(stages, device))
        print(f"\n{format_assumptions(device)}\n")


if __name__ == "__main__":
    main()
