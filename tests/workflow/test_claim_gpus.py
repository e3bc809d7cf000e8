"""Each GPU job of a workstation has GPUs of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from running import ROOT

SCRIPT = ROOT / "workflow/claim_gpus.py"
# Says what it sees, and ends when its input does.
JOB = ("bash", "-c", 'echo "${CUDA_VISIBLE_DEVICES-all}"; read -r')

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def gpus(tmp_path: Path) -> list[str]:
    """Names that no other process on this machine claims."""
    return [f"{tmp_path.name}-{os.getpid()}-{letter}" for letter in "abcd"]


@pytest.fixture
def start(gpus: list[str]) -> Iterator[Start]:
    with ExitStack() as jobs:

        def start_job(wanted: int, **variables: str | None) -> subprocess.Popen[str]:
            given = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus), **variables}
            job = subprocess.Popen(
                [sys.executable, SCRIPT, str(wanted), *JOB],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={name: value for name, value in given.items() if value is not None},
            )
            jobs.enter_context(job)  # at the end closes its input and waits for it
            return job

        yield start_job


def read_gpus(job: subprocess.Popen[str]) -> list[str]:
    return job.stdout.readline().strip().split(",")


def test_jobs_side_by_side_have_gpus_of_their_own(start: Start, gpus: list[str]):
    jobs = [start(wanted) for wanted in (1, 2, 1)]
    chosen = [read_gpus(job) for job in jobs]
    assert [len(names) for names in chosen] == [1, 2, 1]
    assert sorted(name for names in chosen for name in names) == gpus


def test_a_killed_job_gives_its_gpu_back(start: Start, gpus: list[str]):
    first = start(3)
    assert read_gpus(first) == gpus[:3]
    first.kill()
    first.wait()
    assert read_gpus(start(2)) == gpus[:2]


def test_more_jobs_than_gpus_share_them_evenly(start: Start, gpus: list[str]):
    for _ in range(4):
        read_gpus(start(1))
    shared = [read_gpus(start(1))[0] for _ in range(4)]
    assert sorted(shared) == gpus
    assert len(read_gpus(start(9))) == 4


def test_numbers_are_those_of_nvidia_smi(start: Start, tmp_path: Path):
    stand_in = tmp_path / "nvidia-smi"
    stand_in.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho 'GPU 1: A (UUID: GPU-2)'\n")
    stand_in.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    job = start(2, CUDA_VISIBLE_DEVICES=None, PATH=path)
    assert sorted(read_gpus(job)) == ["0", "1"]


@pytest.mark.parametrize(
    ("wanted", "variables", "visible"),
    [
        (0, {"CUDA_VISIBLE_DEVICES": "0,1"}, "0,1"),
        (1, {"CUDA_VISIBLE_DEVICES": "5"}, "5"),
        (1, {"CUDA_VISIBLE_DEVICES": ""}, ""),
        (1, {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_ID": "7"}, "0,1"),
    ],
    ids=["CPU job", "one GPU", "hidden GPUs", "Slurm"],
)
def test_there_is_nothing_to_choose(start: Start, wanted: int, variables: dict, visible: str):
    assert read_gpus(start(wanted, **variables)) == visible.split(",")


def test_there_is_no_gpu(start: Start, tmp_path: Path):
    (tmp_path / "bash").symlink_to(shutil.which("bash"))
    assert read_gpus(start(1, CUDA_VISIBLE_DEVICES=None, PATH=str(tmp_path))) == ["all"]


def test_the_command_says_how_it_ended():
    done = subprocess.run([sys.executable, SCRIPT, "0", "bash", "-c", "exit 7"], check=False)
    assert done.returncode == 7
