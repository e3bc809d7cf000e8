"""Run an experiment through Snakemake, then make its report."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workflow.commands.loading import ROOT, SNAKEFILE, load_experiment
from workflow.commands.progress import follow
from workflow.commands.report import report
from workflow.config_files import read_config_file
from workflow.experiment import Experiment

OFFLINE = "HF_HUB_OFFLINE"
OWN_EXECUTORS = ("local", "dryrun", "touch")  # of Snakemake itself


def run(
    configs: Sequence[Path],
    *,
    profile: str,
    cores: str,
    extra: Sequence[str],
    verbose: bool = False,
) -> None:
    """Run to the end; with further arguments of Snakemake no report is made.

    Progress takes the place of Snakemake's log, unless `verbose`: one line on a terminal, a line in
    a while elsewhere.

    Raises
    ------
    SettingsError, ValueError
        If the config or the profile is wrong.
    SystemExit
        With Snakemake's exit status, if that is not 0.
    """
    experiment = load_experiment(configs)
    place = find_profile(profile)
    check_executor(place)
    command = make_command(configs, cores, "--workflow-profile", str(place), *extra)
    # Arguments of Snakemake's own ask for its own output.
    is_followed = not extra and not verbose
    status = call(command, make_environment(experiment), is_followed=is_followed)
    if status:
        sys.exit(status)
    if not extra:
        report(configs, with_tables=False)  # a run ends with its table


def make_command(configs: Sequence[Path], cores: str, *extra: str) -> list[str]:
    """Return a command line of Snakemake for an experiment."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--cores", cores]
    return [*command, "--configfile", *map(str, configs), *extra]


def find_profile(name: str) -> Path:
    """Return the folder of a profile: a path, one of this folder's, or one of this package's.

    Raises
    ------
    ValueError
        If there is no such profile.
    """
    shipped = ROOT / "profiles"
    for folder in (Path(name), Path("profiles") / name, shipped / name):
        if (folder / "config.yaml").is_file():
            return folder
    known = ", ".join(sorted(path.name for path in shipped.iterdir() if path.is_dir()))
    raise ValueError(
        f"--profile: expected {known}, one of profiles/ in this folder (dbksvd profile NAME writes "
        f"one) or a folder with config.yaml, got {name!r}"
    )


def check_executor(profile: Path) -> None:
    """Refuse a profile whose jobs another program is to run that Snakemake has no plugin for.

    Raises
    ------
    ValueError
        If the plugin is not installed; Snakemake would show its usage, 300 lines.
    """
    name = read_config_file(profile / "config.yaml").get("executor")
    if not isinstance(name, str) or name in OWN_EXECUTORS:
        return
    package = f"snakemake-executor-plugin-{name}"
    if find_spec(package.replace("-", "_")) is None:
        hint = "'dbksvd[slurm]'" if name == "slurm" else package
        raise ValueError(
            f"--profile: expected Snakemake's plugin for executor: {name} in {profile}, found none "
            f"(pip install {hint})"
        )


def make_environment(experiment: Experiment) -> Mapping[str, str]:
    """Return the environment of a run: this Python first, and no hub where none is needed."""
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    environment = {**os.environ, "PATH": os.pathsep.join(filter(None, paths))}
    if experiment.access() is None:
        environment.setdefault(OFFLINE, "1")
    return environment


def call(
    command: Sequence[str], environment: Mapping[str, str], *, is_followed: bool = False
) -> int:
    """Run a program to its end, which a Ctrl-C is for it to find; return its exit status."""
    given: dict[str, Any] = {"env": dict(environment)}
    if is_followed:
        given["env"].setdefault("COLUMNS", str(shutil.get_terminal_size().columns))
        given |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, **given)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if not is_followed:
            return process.wait()
        assert process.stdout is not None
        progress = follow(process.stdout)
        status = process.wait()
        sys.stderr.writelines(f"{line}\n" for line in progress.explain(status))
        return status
    finally:
        signal.signal(signal.SIGINT, before)
        if process.poll() is None:  # SIGTERM to this process alone
            process.terminate()
            process.wait()
