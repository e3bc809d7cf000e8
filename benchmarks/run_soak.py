"""Kill stages and Snakemake itself at random over an experiment: its results must stay the same.

One undisturbed run is the reference. Then the experiment is run from nothing again and again, with
SIGKILLs spread over its jobs and a plain rerun after each; when it is complete, every file is
compared (`benchmarks.same_results`). Prints "faults survived N of M" and writes ``soak.csv``.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from benchmarks.kills import Experiment, run_cycle
from benchmarks.same_results import compare_results
from dbksvd.base.files import replace_file

ROOT = Path(__file__).parents[1]
# Kills between one start from nothing and one comparison.
KILLS_A_CYCLE = 10
# Cycles in a row that may end before their first kill: what they wait for may be their last job.
MOST_EMPTY_CYCLES = 3


def soak(
    experiment: Experiment,
    reference: dict[str, str],
    *,
    jobs: int,
    kills: int,
    seed: int = 0,
    kills_a_cycle: int = KILLS_A_CYCLE,
    output: Path | None = None,
) -> pd.DataFrame:
    """Kill `kills` times; return a row for each fault.

    Parameters
    ----------
    experiment : Experiment
        Where to run; its results are removed first.
    reference : dict
        Digests of an undisturbed run.
    jobs : int
        How many jobs that had.
    kills, kills_a_cycle : int
        How many in all, and how many between one start from nothing and one comparison.
    seed : int
        Of when and what is killed.
    output : Path, optional
        CSV, rewritten after every cycle.

    Returns
    -------
    DataFrame
        Columns ``cycle``, those of :class:`Fault`, ``survived`` and ``why_not``: all faults of a
        cycle survived if its results are those of the reference.

    Raises
    ------
    RuntimeError
        If `MOST_EMPTY_CYCLES` in a row had no job to kill, or one such ended with other results.
    """
    draw = random.Random(seed)
    rows: list[dict[str, object]] = []
    cycle, empty = 0, 0
    while len(rows) < kills:
        faults, why_not = run_cycle(experiment, min(kills_a_cycle, kills - len(rows)), jobs, draw)
        why_not = why_not or "; ".join(compare_results(reference, experiment.digest()))
        empty = 0 if faults else empty + 1
        if empty == MOST_EMPTY_CYCLES or (empty and why_not):
            raise RuntimeError(f"cycle {cycle}: expected a job to kill, got none; {why_not}")
        rows += [
            {"cycle": cycle, **asdict(fault), "survived": not why_not, "why_not": why_not}
            for fault in faults
        ]
        cycle += 1
        if output is not None:
            with replace_file(output) as temporary:
                pd.DataFrame(rows).to_csv(temporary, index=False)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="experiments/tiny.yaml")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "benchmarks")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        ignore = shutil.ignore_patterns(".*", "results", "tests", "docs")
        project = shutil.copytree(ROOT, Path(folder) / "project", ignore=ignore)
        shutil.copy(arguments.config, project / "soak.yaml")
        experiment = Experiment(project, "soak.yaml", cores=arguments.cores)
        jobs = experiment.finish()
        reference = experiment.digest()
        print(f"undisturbed: {jobs} jobs, {len(reference)} files", flush=True)
        faults = soak(
            *(experiment, reference),
            jobs=jobs,
            kills=arguments.kills,
            seed=arguments.seed,
            output=arguments.output / "soak.csv",
        )
    print(faults.to_string(index=False))
    print(f"faults survived {faults['survived'].sum()} of {len(faults)}")
    sys.exit(not faults["survived"].all())


if __name__ == "__main__":
    main()
