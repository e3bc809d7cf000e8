"""Print what an experiment costs before it is run: hours, disk and memory of each stage."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml
from tabulate import tabulate

from dbksvd.base.errors import report_errors
from dbksvd.estimates.devices import DEVICES, Device
from dbksvd.estimates.stages import Stage, estimate_stages
from dbksvd.models.sizes import find_kind, find_sizes
from workflow.experiment import ConfigError, Experiment


def format_seconds(seconds: float) -> str:
    """Return seconds as hours, minutes or seconds, whichever reads best."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def format_bytes(size: float) -> str:
    """Return bytes as GB, or MB where that is less than one."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def format_table(stages: list[Stage], device: Device) -> str:
    """Return the stages and their sums as a table."""
    total = Stage(
        "all",
        sum(stage.jobs for stage in stages),
        sum(stage.seconds for stage in stages),
        max(stage.memory for stage in stages),
        sum(stage.disk for stage in stages),
    )
    rows = [
        (
            stage.name,
            stage.jobs,
            format_seconds(stage.seconds),
            format_bytes(stage.memory),
            format_bytes(stage.disk),
        )
        for stage in [*stages, total]
    ]
    return tabulate(rows, ["stage", "jobs", f"{device.name} time", "memory", "disk"])


def format_assumptions(device: Device) -> str:
    """Return what the table assumes."""
    shares = ", ".join(
        f"{what} at {share * device.peak / 1e12:.3g}"
        for what, share in (
            ("the model", device.model),
            ("matrix products", device.products),
            ("pursuit steps", device.steps),
        )
    )
    origin = (
        "rates that the default experiment reached"
        if device.name == "CPU core"
        else f"shares of the {device.peak / 1e12:.0f} TFLOP/s in the data sheet that are assumed; "
        "nothing was measured on a GPU"
    )
    return (
        f"Operations are counted from the config. {device.name}: {shares} TFLOP/s, {origin}. A job "
        f"takes {device.start:.0f} s to start, with SAEBench {device.start_eval:.0f} s; disks do "
        f"{device.disk / 1e9:g} GB/s. Times are those of all jobs added up: n {device.name}s take "
        "an nth. Downloads, queues, the judge's answers and retries are not counted. Memory is "
        "that of the data of the largest job, on the device or beside it."
    )


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--device", choices=[*DEVICES, "all"], default="all")
    arguments = parser.parse_args()

    config = yaml.safe_load(arguments.config.read_text())
    try:
        experiment = Experiment(config)
    except ConfigError as error:
        raise ValueError(f"config: {error}") from error
    model = config.get("model") or {}
    sizes = find_sizes(model)
    kind = find_kind(model) if model else None
    for name in DEVICES if arguments.device == "all" else [arguments.device]:
        device = DEVICES[name]
        stages = estimate_stages(config, experiment.fits, sizes, device, kind or "causal")
        print(f"{config['experiment']} on one {device.name}\n")
        print(format_table(stages, device))
        print(f"\n{format_assumptions(device)}\n")


if __name__ == "__main__":
    main()
