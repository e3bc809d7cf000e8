"""The warm process of one script: imports what the script does, and forks for each of its jobs.

Started by scripts.py as ``python server.py SCRIPT LISTENER ALIVE``, with two file descriptors: the
socket on which jobs are asked for, and a pipe whose other end Snakemake holds.

A job is a fork, so nothing that one does is seen by another. What jobs import on their way, later
ones find imported: each job says what it imported, and the next is forked after this process has
imported the same. The environment is that of the first job; a job with another one is not taken,
since libraries have read theirs when they were imported.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

# Seconds without a job after which the memory is given back.
IDLE_SECONDS = 60.0
# Seconds in which a job says what it is.
REQUEST_SECONDS = 30.0
# Threads that know of forks: Arrow's allocator starts one when pandas is imported.
HARMLESS_THREADS = {"jemalloc_bg_thd"}
# These differ between jobs; nothing that is imported reads them.
SHELL_VARIABLES = ("_", "SHLVL", "PWD", "OLDPWD")
PR_SET_PDEATHSIG = 1
CREDENTIALS = struct.Struct("3i")


@dataclass
class Job:
    """A fork that runs the script.

    Parameters
    ----------
    pid : int
        Its process.
    handle : int
        File descriptor that is readable when it has ended.
    caller : socket
        Who asked for it.
    imported : int
        File in memory, for the names of what it imported.
    """

    pid: int
    handle: int
    caller: socket.socket
    imported: int


class Server:
    """Forks a process for each job of a script.

    Parameters
    ----------
    script : Path
        The script.
    listener : socket
        Where jobs are asked for.
    alive : int
        File descriptor that is readable when Snakemake has ended.
    client : module
        What both sides of the connection agree on.
    """

    def __init__(self, script: Path, listener: socket.socket, alive: int, client: Any) -> None:
        self.script, self.listener, self.alive, self.client = script, listener, alive, client
        self.jobs: dict[int, Job] = {}
        self.learned: list[str] = []
        self.environment: dict[str, str] | None = None
        self.is_open = True
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self._accept)
        self.selector.register(alive, selectors.EVENT_READ, self._close)

    def serve(self) -> None:
        """Serve until Snakemake has ended, or no job was asked for in a while."""
        while self.is_open or self.jobs:
            found = self.selector.select(None if self.jobs else IDLE_SECONDS)
            if not found:
                return
            for key, _ in found:
                key.data()

    def _close(self) -> None:
        """Take no more jobs; those that run go on, as they do without their Snakemake."""
        self.selector.unregister(self.listener)
        self.selector.unregister(self.alive)
        self.is_open = False

    def _accept(self) -> None:
        caller, _ = self.listener.accept()
        files: list[int] = []
        try:
            request, files = self._read_request(caller)
        except (OSError, ValueError, struct.error):  # gone, or no client of ours
            request = None
        if request is not None and self._can_serve(request):
            self._import_learned()
            self._fork(request, caller, files)
        else:
            caller.close()
        for file in files:
            os.close(file)

    def _read_request(self, caller: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
        """Return what is asked for, and the files that the job gets; None for another user's."""
        caller.settimeout(REQUEST_SECONDS)
        credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        if CREDENTIALS.unpack(credentials)[1] != os.getuid():
            return None, []
        head, files, _, _ = socket.recv_fds(caller, self.client.SIZE.size, 3)
        size = self.client.SIZE.unpack(head)[0]
        content = self.client.receive(caller, size).decode("utf-8", "surrogateescape")
        return dict(json.loads(content)), files

    def _can_serve(self, request: Mapping[str, Any]) -> bool:
        """Return whether a job would find what it would have imported itself."""
        given = dict(request["environment"])
        for name in SHELL_VARIABLES:
            given.pop(name, None)
        if self.environment is None:
            self.environment = given
            os.environ.clear()
            os.environ.update(given)
            os.chdir(request["folder"])
            self._warm_up()
        is_same = (
            given == self.environment
            and request["python"] == sys.executable
            and Path(request["arguments"][0]) == self.script
        )
        # A fork has one thread; what another one held would be held for ever.
        return is_same and not list_threads() - HARMLESS_THREADS

    def _warm_up(self) -> None:
        """Begin as the script does, but for its main(). Whatever it raises ends this process."""
        warm_up = runpy.run_path(str(self.script), run_name="warm").get("warm_up")
        if warm_up is not None:
            warm_up()

    def _import_learned(self) -> None:
        """Import what jobs have imported, in their order."""
        for name in self.learned:
            if name not in sys.modules:
                with suppress(Exception):  # parts of a module that only its own code can import
                    import_module(name)
        self.learned.clear()
        gc.collect()
        gc.freeze()  # forks do not copy what the collector would touch

    def _fork(self, request: Mapping[str, Any], caller: socket.socket, files: list[int]) -> None:
        imported = os.memfd_create("imported")
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become(request, files, imported)
        job = Job(pid, os.pidfd_open(pid), caller, imported)
        self.jobs[pid] = job
        self.selector.register(job.handle, selectors.EVENT_READ, lambda: self._end(job))
        self.selector.register(caller, selectors.EVENT_READ, lambda: self._hear(job))
        with suppress(OSError):  # the caller has just ended: heard in the next round
            caller.sendall(self.client.TAKEN + self.client.PID.pack(pid))

    def _hear(self, job: Job) -> None:
        """End a job whose caller was killed: the caller says nothing while it lives."""
        self.selector.unregister(job.caller)
        os.kill(job.pid, signal.SIGKILL)

    def _end(self, job: Job) -> None:
        _, status = os.waitpid(job.pid, 0)
        self.selector.unregister(job.handle)
        os.close(job.handle)
        with suppress(KeyError):
            self.selector.unregister(job.caller)
        with suppress(OSError):
            job.caller.sendall(self.client.STATUS.pack(status))
        job.caller.close()
        os.lseek(job.imported, 0, os.SEEK_SET)
        with os.fdopen(job.imported) as stream:
            names = stream.read().split("\n")
        known = {*sys.modules, *self.learned}
        self.learned += [name for name in names if name and name not in known]
        del self.jobs[job.pid]

    def _become(self, request: Mapping[str, Any], files: list[int], imported: int) -> NoReturn:
        """Run the job in this fork, as ``python SCRIPT ARGUMENTS…`` would."""
        try:
            # should the warm process be killed, nobody could end this job
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            Path("/proc/self/comm").write_text(name_job(request["pid"]))
            self.selector.close()
            self.listener.close()
            os.close(self.alive)
            for job in self.jobs.values():
                job.caller.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
            os.chdir(request["folder"])
            os.environ.update(request["environment"])
            sys.argv = list(request["arguments"])
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            before = set(sys.modules)
            status = run_script(str(self.script))
            new = "\n".join(name for name in sys.modules if name not in before)
            os.write(imported, new.encode())
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
            traceback.print_exc()
            os._exit(1)


def list_threads() -> set[str]:
    """Return the names of the threads of this process, but for the one that asks."""
    own = str(threading.get_native_id())
    folders = Path("/proc/self/task").iterdir()
    return {path.joinpath("comm").read_text().strip() for path in folders if path.name != own}


def name_job(pid: int) -> str:
    """Return the name of a job's process, which says for whom it works (benchmark.py)."""
    return f"for {pid}"


def run_script(script: str) -> int:
    """Run a script to its end; return the exit status that Python would have."""
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - as Python does at the end of a program
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    return status & 0xFF


def main() -> None:
    """Serve the script that the command line names."""
    script, listener, alive = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    client = import_module("client")  # beside this file, before the script's folder takes its place
    sys.path[0] = str(script.parent)
    # A terminal tells all its processes: jobs hear it, and this one ends when Snakemake does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Server(script, socket.socket(fileno=listener), alive, client).serve()


if __name__ == "__main__":
    main()
