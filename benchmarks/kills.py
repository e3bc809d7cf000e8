"""SIGKILL while an experiment runs: jobs, Snakemake or both, at random times."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from benchmarks.same_results import digest_results

KINDS = ("stage", "snakemake", "all")
# A stage is killed up to so many seconds after it was seen.
LONGEST_DELAY = 3.0
POLL_SECONDS = 0.05


@dataclass
class Fault:
    """One SIGKILL.

    Parameters
    ----------
    kind : {"stage", "snakemake", "all"}
        Who was killed: one job, Snakemake alone (its jobs go on without it), or all of them.
    stages : str
        The scripts that ran at that time; of a stage, the one that was killed.
    jobs_done : int
        Jobs that had ended since the start from nothing.
    """

    kind: str
    stages: str
    jobs_done: int


@dataclass
class Experiment:
    """An experiment in a folder of its own, and what runs in it.

    Parameters
    ----------
    folder : Path
        A copy of the project.
    config : str
        Its config file, relative to `folder`.
    targets : sequence of str
        What to make; all by default.
    cores : int
        For Snakemake.
    own_session : bool
        Whether runs are process groups of their own, to be interrupted as a terminal does.
    """

    folder: Path
    config: str
    targets: Sequence[str] = ()
    cores: int = 2
    own_session: bool = False
    runs: int = 0
    orphans: list[psutil.Process] = field(default_factory=list)

    @property
    def results(self) -> Path:
        """Folder of the results."""
        name = yaml.safe_load((self.folder / self.config).read_text())["experiment"]
        return self.folder / "results" / name

    def start(self, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Start Snakemake; return its process and the file of its output."""
        self.runs += 1
        log = self.folder / f"run-{self.runs}.log"
        command = [sys.executable, "-m", "snakemake", "--configfile", self.config]
        command += ["--cores", str(self.cores), *options, "--", *self.targets]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment.pop("PYTHONPATH", None)
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdout=stream,
                stderr=stream,
                start_new_session=self.own_session,
            )
        return process, log

    def finish(self, *options: str) -> int:
        """Run to the end; return how many jobs that took.

        Raises
        ------
        RuntimeError
            If Snakemake failed; the message is the end of its output.
        """
        process, log = self.start(*options)
        if process.wait():
            raise RuntimeError(f"{self.config}: the run failed:\n{log.read_text()[-3000:]}")
        return count_finished(log)

    def digest(self) -> dict[str, str]:
        """Return the digests of all results once nothing runs any more."""
        psutil.wait_procs(self.orphans)
        self.orphans.clear()
        return digest_results(self.results)

    def clear(self) -> None:
        """Remove all results and what Snakemake remembers of them."""
        shutil.rmtree(self.folder / "results", ignore_errors=True)
        shutil.rmtree(self.folder / ".snakemake", ignore_errors=True)


def run_cycle(
    experiment: Experiment, kills: int, jobs: int, draw: random.Random
) -> tuple[list[Fault], str]:
    """Make an experiment from nothing with up to `kills` interruptions spread over its `jobs`.

    Returns
    -------
    faults : list of Fault
        Fewer than `kills` where the run was complete before.
    failure : str
        Why it could not be completed; empty where it was.
    """
    experiment.clear()
    faults: list[Fault] = []
    done = 0
    for number in range(kills):
        wanted = min(int(jobs * (number + draw.random()) / kills), jobs - 2)
        fault, finished = _interrupt(experiment, wanted - done, draw)
        if fault is None:
            break
        fault.jobs_done += done
        done += finished
        faults.append(fault)
    try:
        experiment.finish()
    except RuntimeError as error:
        return faults, str(error)
    return faults, ""


def _interrupt(
    experiment: Experiment, wanted: int, draw: random.Random
) -> tuple[Fault | None, int]:
    """Run until `wanted` jobs have ended, then kill; return what was done, and the jobs that ended.

    Snakemake ends by itself after the kill of a stage, when it has done what it can without it.
    """
    process, log = experiment.start()
    snakemake = psutil.Process(process.pid)
    delay = draw.random() * LONGEST_DELAY
    while process.poll() is None and (count_finished(log) < wanted or not find_stages(snakemake)):
        time.sleep(POLL_SECONDS)
    time.sleep(delay)
    # Between two jobs no stage runs: wait for the next.
    while not (stages := find_stages(snakemake)) and process.poll() is None:
        time.sleep(POLL_SECONDS)
    if process.poll() is not None:
        return None, count_finished(log)
    kind = draw.choice(KINDS)
    killed = [draw.choice(stages)] if kind == "stage" else stages
    fault = Fault(kind, " ".join(map(name_stage, killed)), count_finished(log))
    if kind != "stage":
        process.kill()
        process.wait()
        experiment.orphans += stages
    if kind != "snakemake":
        for stage in killed:
            _kill(stage)
    process.wait()
    if kind != "stage":  # the lock is left behind
        unlock, _ = experiment.start("--unlock")
        unlock.wait()
    return fault, count_finished(log)


def kill_at_checkpoints(experiment: Experiment, checkpoints: Sequence[Path]) -> None:
    """Run, and kill each stage that writes one of the `checkpoints` as soon as it is there.

    Parameters
    ----------
    experiment : Experiment
        Its run ends by itself, since no job is left that could go on.
    checkpoints : sequence of Path
        Folders, one for each stage; what is killed has the name of its folder in its command.

    Raises
    ------
    RuntimeError
        If the run ended before all stages had been killed.
    """
    process, log = experiment.start()
    snakemake = psutil.Process(process.pid)
    left = list(checkpoints)
    while left:
        if process.poll() is not None:
            raise RuntimeError(f"no checkpoint in {left[0]}:\n{log.read_text()[-3000:]}")
        for folder in [folder for folder in left if any(folder.glob("checkpoint*"))]:
            name = folder.relative_to(experiment.folder).as_posix()
            for stage in find_stages(snakemake):
                if name in stage.cmdline():
                    _kill(stage)
            left.remove(folder)
        time.sleep(POLL_SECONDS / 10)
    process.wait()


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):  # it has just ended
        process.kill()


def find_stages(snakemake: psutil.Process) -> list[psutil.Process]:
    """Return the running scripts below a Snakemake."""
    try:
        below = snakemake.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in below if name_stage(process)]


def name_stage(process: psutil.Process) -> str:
    """Return the name of the script that a process runs; empty for any other process."""
    try:
        command = process.cmdline()[1:3]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
    # a job in a fork of a warm process ends with the client that asked for it
    if command and command[0].endswith("/workflow/warm/client.py"):
        command.pop(0)
    match = re.fullmatch(r".*/scripts/(\w+)\.py", command[0]) if command else None
    return match[1] if match else ""


def count_finished(log: Path) -> int:
    """Return how many jobs have ended well in a run."""
    return log.read_text(errors="replace").count("Finished jobid")
