"""Two emulated Slurm nodes on this machine (tests/slurm/cluster.sh), and what ran on them."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from running import ROOT, run_snakemake

SCRIPT = ROOT / "tests/slurm/cluster.sh"
CANNOT_RUN = 3  # exit status of the script
PROFILE = "emulated"
SNAKEMAKE = ROOT / "tests/slurm/snakemake_without_pauses.py"
NODE_MB = 24000  # memory of a node, as the script says


@dataclass(frozen=True)
class Job:
    """One submission to Slurm, as ``scontrol`` remembers it."""

    rule: str
    wildcards: str
    state: str
    nodes: str
    memory_mb: int
    gpus: int  # allocated
    log: Path


def start_cluster(folder: Path) -> str | None:
    """Start the cluster; return None, or why it cannot run here."""
    done = run_script("start", folder)
    if done.returncode == CANNOT_RUN:
        return done.stdout.strip().splitlines()[-1]
    if done.returncode != 0:
        stop_cluster(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return None


def stop_cluster(folder: Path) -> None:
    done = run_script("stop", folder)
    assert done.returncode == 0, done.stdout + done.stderr


def run_script(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # Daemons keep what they inherit open: a pipe would never end.
    with (folder / f"{command}.out").open("w+") as out, (folder / f"{command}.err").open("w+") as err:  # fmt: skip
        done = subprocess.run(
            [SCRIPT, command, folder],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            timeout=300,
            check=False,
        )
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())


def write_profile(project: Path, **resources: dict[str, Any]) -> None:
    """Write the shipped slurm profile with the `resources` of some rules changed."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    profile["latency-wait"] = 10
    for rule, values in resources.items():
        profile["set-resources"].setdefault(rule, {}).update(values)
    path = project / "profiles" / PROFILE / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(profile))


def run_through_slurm(project: Path, *arguments: str) -> None:
    """Run the tiny experiment with the profile that was written; it must end well.

    Snakemake and all jobs run in an environment whose path has a space.
    """
    environment = project.parent / "an environment"
    if not environment.exists():
        environment.symlink_to(sys.prefix)
    python = environment / Path(sys.executable).relative_to(sys.prefix)
    options = {"program": (str(SNAKEMAKE),), "python": str(python)}
    done = run_snakemake(project, "--workflow-profile", PROFILE, *arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr


def list_jobs(project: Path) -> list[Job]:
    """Return all jobs that were submitted from a folder, in the order of submission."""
    command = ["scontrol", "--details", "--oneliner", "show", "jobs"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line for line in output.splitlines() if f" WorkDir={project} " in line]
    return [parse_job(line) for line in lines]


def parse_job(line: str) -> Job:
    def find(pattern: str, default: str | None = None) -> str:
        match = re.search(pattern, line)
        if match is None and default is not None:
            return default
        assert match is not None, f"{pattern} in {line}"
        return match[1]

    return Job(
        rule=find(r" Comment=rule_(\w+?)(?:_wildcards_|\s)"),
        wildcards=find(r"_wildcards_(\S+)", ""),
        state=find(r" JobState=(\w+)"),
        nodes=find(r" NodeList=(\S+)"),
        memory_mb=int(find(r" TRES=\S*\bmem=(\d+)M")),
        gpus=int(find(r" JOB_GRES=gpu:(\d+)", "0")),
        log=Path(find(r" StdOut=(.+?)(?: \w+=|$)")),
    )
