"""Estimates for people: a table of stages, and what it assumes."""

from __future__ import annotations

from tabulate import tabulate

from dbksvd.estimates.devices import Device
from dbksvd.estimates.stages import Stage


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
