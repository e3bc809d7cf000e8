"""Jobs in forks of warm processes: what starts them sees what it would see of a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from running import ROOT

from workflow.warm.client import VARIABLE
from workflow.warm.scripts import WarmScripts

CLIENT = ROOT / "workflow/warm/client.py"
# Says where it runs and what is imported; then does what it is told.
SCRIPT = """
import json
import os
import sys
import time

import slow


def main():
    task, *arguments = sys.argv[1:]
    if task == "tell":
        import colorsys  # on its way
        found = {"arguments": arguments, "folder": os.getcwd(), "parent": os.getppid()}
        found |= {"asked": os.environ["ASKED"], "main": sys.modules["__main__"].__file__}
        print(json.dumps(found | {"known": "late" in sys.modules, "number": slow.NUMBER}))
        import late
        slow.NUMBER += 1
    if task == "fail":
        sys.exit("error: it was asked to")
    if task == "status":
        sys.exit(7)
    if task == "raise":
        raise RuntimeError("a bug")
    if task == "wait":
        print(os.getpid(), flush=True)
        time.sleep(60)
    if task == "die":
        os.kill(os.getpid(), 9)


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "work.py").write_text(SCRIPT)
    (folder / "slow.py").write_text("NUMBER = 0\n")
    (folder / "late.py").write_text("")
    return folder / "work.py"


@pytest.fixture
def warm(script: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WarmScripts]:
    monkeypatch.setenv(VARIABLE, "")
    started = WarmScripts([script], ROOT)
    started.start()
    yield started
    end(started)


def end(warm: WarmScripts) -> None:
    """End the warm processes as the end of Snakemake does."""
    if warm._held >= 0:
        os.close(warm._held)
        warm._held = -1
    for process in warm.processes.values():
        process.wait(30)


def start(script: Path, *arguments: str, asked: str = "me", **options: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, CLIENT, script, *arguments],
        env=os.environ | {"ASKED": asked},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(script: Path, *arguments: str, **options: object) -> tuple[int, str, str]:
    process = start(script, *arguments, **options)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def tell(script: Path, *arguments: str, **options: object) -> dict:
    status, output, errors = run(script, "tell", *arguments, **options)
    assert (status, errors) == (0, "")
    return json.loads(output)


def find_server(warm: WarmScripts) -> int:
    return next(iter(warm.processes.values())).pid


def wait_for_end(pid: int) -> None:
    for _ in range(600):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} still runs")


def test_a_job_is_a_fork_that_runs_as_the_script_would(warm: WarmScripts, script: Path):
    arguments = ("--settings", '{"a": "ä 1"}', "")
    first, second = (tell(script, *arguments, cwd=script.parent) for _ in range(2))
    assert first["parent"] == second["parent"] == find_server(warm)
    assert first["arguments"] == list(arguments)
    assert first["folder"] == str(script.parent)
    assert first["main"] == str(script)
    # What one job changes, the next does not see; what it imported is there.
    assert (first["number"], second["number"]) == (0, 0)
    assert (first["known"], second["known"]) == (False, True)


@pytest.mark.parametrize("task", ["fail", "status", "raise", "die"])
def test_a_job_ends_as_the_script_does(
    warm: WarmScripts, script: Path, task: str, monkeypatch: pytest.MonkeyPatch
):
    status, output, errors = run(script, task)
    assert find_server(warm)
    monkeypatch.setenv(VARIABLE, "")
    expected = run(script, task)
    assert (status, output) == expected[:2]
    assert errors.splitlines()[-1:] == expected[2].splitlines()[-1:]
    assert status == {"fail": 1, "status": 7, "raise": 1, "die": -signal.SIGKILL}[task]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_job_is_gone(warm: WarmScripts, script: Path, number: int):
    caller = start(script, "wait")
    job = int(caller.stdout.readline())
    assert psutil.Process(job).ppid() == find_server(warm)
    assert [process.pid for process in warm.find_children(caller.pid)] == [job]
    caller.send_signal(number)
    assert caller.wait(30) == -number
    wait_for_end(job)
    caller.communicate()
    assert tell(script)["parent"] == find_server(warm)


def test_a_job_goes_on_without_its_snakemake_but_not_without_its_process(
    warm: WarmScripts, script: Path
):
    caller = start(script, "wait")
    job = int(caller.stdout.readline())
    os.close(warm._held)
    warm._held = -1
    time.sleep(0.3)
    assert psutil.pid_exists(job)
    server = psutil.Process(find_server(warm))
    server.kill()
    wait_for_end(job)
    _, errors = caller.communicate(timeout=30)
    assert caller.returncode == 1
    assert errors.startswith("error: ")
    assert "was lost" in errors


def test_another_environment_is_a_process_of_its_own(warm: WarmScripts, script: Path):
    assert tell(script)["parent"] == find_server(warm)
    found = tell(script, asked="someone else")
    assert found["asked"] == "someone else"
    assert found["parent"] == os.getpid()


def test_a_script_that_cannot_be_imported_says_so_itself(warm: WarmScripts, script: Path):
    (script.parent / "slow.py").write_text("raise OSError('no such thing')")
    for _ in range(2):
        status, _, errors = run(script, "tell")
        assert status == 1
        assert "OSError: no such thing" in errors
        wait_for_end(find_server(warm))


def test_warm_processes_end_with_snakemake(warm: WarmScripts, script: Path):
    server = tell(script)["parent"]
    end(warm)
    assert not psutil.pid_exists(server)
