"""The table of a run in which some dictionaries failed: the others stand, those say "failed".

The table is made by the same rules, in a run of Snakemake of its own that may run nothing else. Its
params name what failed; so the next whole run, whose params do not, makes the table anew, and a job
that failed has no output and is tried again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dbksvd.base.files import write_json
from workflow.ending import find_reason, list_single, name_job

# In the environment of that run: its file of what failed.
VARIABLE = "DBKSVD_UNFINISHED"
RULES = ("collect_scores", "summarise_scores")


def read_failed() -> list[list[Any]]:
    """Return site, method, n_atoms, k, seed and reason of each dictionary that failed."""
    path = os.environ.get(VARIABLE)
    return [] if path is None else list(json.loads(Path(path).read_text()))


def find_failed(
    dag: Any, failed: Sequence[Any], metrics: Mapping[str, Sequence[Any]]
) -> list[list[Any]] | None:
    """Return what a run has not scored: the keys of each dictionary, and why.

    Parameters
    ----------
    dag : snakemake.dag.DAG
        The jobs of the run.
    failed : sequence of jobs
        Those that failed.
    metrics : mapping of str to sequence
        The keys of each dictionary, by the file that its evaluation ends with.

    Returns
    -------
    list of list, or None
        None where some dictionary was not asked for.
    """
    jobs = {str(file): job for job in dag.jobs for file in job.output}
    if not metrics.keys() <= jobs.keys():
        return None
    reasons = {
        job: f"{job.rule.name}: {find_reason(job.log[0])}" if job.log else name_job(job)
        for job in list_single(failed)
    }
    found = []
    for file, keys in metrics.items():
        job = jobs[file]
        if dag.finished(job) or not dag.needrun(job):
            continue
        found.append([*keys, _find_cause(dag, job, reasons) or "not run"])
    return found


def _find_cause(dag: Any, job: Any, reasons: Mapping[Any, str]) -> str | None:
    """Return the reason of the nearest failed job before a job, or of the job itself."""
    waiting, seen = [job], set()
    while waiting:
        one = waiting.pop(0)
        if one in reasons:
            return reasons[one]
        if one not in seen:
            seen.add(one)
            waiting += [other for other in dag.dependencies[one] if dag.needrun(other)]
    return None


def make_table(
    snakefile: str | Path, config: Any, failed: list[list[Any]], targets: Sequence[str]
) -> bool:
    """Make the table of what is there; return whether it was made.

    Parameters
    ----------
    snakefile : path
        Of this workflow.
    config : mapping
        The config of the run, its layers merged.
    failed : list of list
        As `find_failed` returns it.
    targets : sequence of str
        Files of the table.
    """
    folder = Path(".snakemake/unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "failed.json", failed)
    # YAML, since a number such as 1e+30 of a JSON file is a string to YAML's reader
    text = yaml.safe_dump(config, sort_keys=False)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)),
        *("--configfile", str(folder / "config.yaml"), "--cores", "1", "--nolock"),
        # Of this run's hardware nothing counts: both jobs take a second.
        *("--profile", "none", "--workflow-profile", "none", "--quiet", "all"),
        *("--rerun-incomplete", "--allowed-rules", *RULES, "--", *targets),
    ]
    environment = os.environ | {VARIABLE: str(folder / "failed.json")}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return done.returncode == 0
