"""What of an experiment is done, and what a run would do and why, from Snakemake's dry run."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dbksvd.base.layout import SEAL_FILE
from workflow.commands.loading import load_experiment
from workflow.commands.run import make_command, make_environment
from workflow.experiment import Experiment

# How Snakemake says why a job runs, and how we do.
REASONS = {
    "Missing output files": "not made yet",
    "Updated input files": "its inputs are newer",
    "Set of input files has changed": "it reads other files than before",
    "Params have changed": "its settings or its code changed",
    "Code has changed": "the rule changed",
    "Software environment definition has changed": "its environment changed",
    "Input files updated by another job": "a stage before it runs",
    "Rules with neither input nor output files": "asked for",
    "Missing job metadata": "nothing is known of how it was made",
    "Forced execution": "asked for",
}
UNKNOWN = "Snakemake says so"
JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
FIELD = re.compile(r"^    (reason|wildcards): (.*)$")


@dataclass
class Job:
    """A job that a run would do: its rule, its wildcards as Snakemake prints them, and why."""

    rule: str
    wildcards: str = ""
    reason: str = UNKNOWN


def tell_status(configs: Sequence[Path], *, as_json: bool = False) -> None:
    """Print what is done and what would run.

    Raises
    ------
    SettingsError
        If the config is wrong.
    ValueError
        If Snakemake cannot plan the run; the message has its last line.
    """
    experiment = load_experiment(configs)
    done, jobs = count_done(experiment), plan(configs, experiment)
    if as_json:
        found = {"experiment": experiment.config.experiment, "done": done}
        print(json.dumps(found | {"jobs": [asdict(job) for job in jobs]}))
        return
    print(f"{experiment.config.experiment}, in {experiment.folder}")
    for name, (have, wanted) in done.items():
        print(f"  {name:<14}{have} of {wanted}")
    if not jobs:
        print("A run would do nothing: all is there and up to date.")
        return
    # Checkpoints and the final target come anew with what is behind them.
    print(f"A run would do {len(jobs)} jobs, and more where these decide what follows:")
    width = max(len(job.rule) for job in jobs) + 2
    for (rule, reason), count in Counter((job.rule, job.reason) for job in jobs).items():
        print(f"  {count:>4} of {rule:<{width}}{reason}")


def count_done(experiment: Experiment) -> dict[str, tuple[int, int]]:
    """Return how many dictionaries and scores are there, and how many there will be."""
    root = Path(experiment.folder)
    fits = [root / fit.site / "dictionaries" / fit.name / SEAL_FILE for fit in experiment.fits]
    scores = [
        Path(
            experiment.ground_truth_file(fit)
            or root / fit.site / "evaluations" / fit.name / "metrics.json"
        )
        for fit in experiment.fits
    ]
    figures = [root / "figures" / f"{name}.png" for name in experiment.figures]
    shards = [root / site / "shards" / "manifest.json" for site in experiment.sites]
    groups = {"shards": shards, "dictionaries": fits, "scores": scores, "figures": figures}
    return {
        name: (sum(path.is_file() for path in paths), len(paths)) for name, paths in groups.items()
    }


def plan(configs: Sequence[Path], experiment: Experiment) -> list[Job]:
    """Return the jobs of a dry run."""
    done = subprocess.run(
        make_command(configs, "1", "-n", "--workflow-profile", "none"),
        capture_output=True,
        text=True,
        check=False,
        env=dict(make_environment(experiment)),
    )
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines()
        told = [line for line in lines if "error" in line.lower()] or lines[-1:]
        raise ValueError(f"snakemake -n: expected a plan, got: {' '.join(told[:1])}")
    return list(read_jobs(done.stdout + done.stderr))


def read_jobs(text: str) -> Iterator[Job]:
    """Yield the jobs of Snakemake's printed plan."""
    job = None
    for line in text.splitlines():
        if found := JOB.match(line):
            if job is not None:
                yield job
            job = Job(found[1])
        elif job is not None and (field := FIELD.match(line)):
            value = say_reason(field[2]) if field[1] == "reason" else field[2]
            setattr(job, field[1], value)
    if job is not None and job.rule != "all":
        yield job


def say_reason(text: str) -> str:
    """Return in words why a job runs."""
    said = [words for start, words in REASONS.items() if start.lower() in text.lower()]
    return said[0] if said else UNKNOWN
