"""The warm processes of a run, started when the first job of their script asks for them."""

from __future__ import annotations

import os
import secrets
import selectors
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import psutil

from workflow.warm.client import VARIABLE, name_socket
from workflow.warm.processes import list_children, list_descendants, open_processes, read_name

SERVER = Path(__file__).with_name("server.py")
OFF = "off"
WAITING = 64  # jobs that may wait for a process to be ready


class WarmScripts:
    """Listens for the jobs of some scripts, in a thread of Snakemake's process.

    The first job of a script starts its warm process, which takes the socket over; when that has
    ended, since there were no jobs in a while, the next one starts another. All end with Snakemake,
    by the end of a pipe.

    Parameters
    ----------
    scripts : iterable of path
        The scripts.
    root : path
        Folder that holds ``scripts/``, first on the path of imports.
    """

    def __init__(self, scripts: Iterable[Path], root: Path) -> None:
        self.scripts, self.root = list(scripts), root
        self.name = f"dbksvd-{secrets.token_hex(16)}"
        self.processes: dict[Path, subprocess.Popen[bytes]] = {}
        self._alive, self._held = os.pipe()  # nothing that runs inherits the other end
        self._selector = selectors.DefaultSelector()
        self._python = shutil.which("python")

    def start(self) -> None:
        """Listen; jobs that begin from now on find the warm processes."""
        for script in self.scripts:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(name_socket(self.name, str(script)))
            listener.listen(WAITING)
            self._listen(script, listener)
        os.environ[VARIABLE] = self.name
        threading.Thread(target=self._run, name="warm scripts", daemon=True).start()

    def find_children(self, *pids: int) -> list[psutil.Process]:
        """Return the processes that work for a job of any of these processes."""
        from workflow.warm.server import name_job

        names = {name_job(pid) for pid in pids}
        servers = [process.pid for process in list(self.processes.values())]
        forks = [fork for server in servers for fork in list_children(server)]
        own = [fork for fork in forks if read_name(fork) in names]
        return open_processes(pid for fork in own for pid in (fork, *list_descendants(fork)))

    def _listen(self, script: Path, listener: socket.socket) -> None:
        def begin() -> None:
            self._selector.unregister(listener)
            self._begin(script, listener)

        self._selector.register(listener, selectors.EVENT_READ, begin)

    def _begin(self, script: Path, listener: socket.socket) -> None:
        path = os.environ.get("PYTHONPATH")
        given = str(self.root) if path is None else f"{self.root}{os.pathsep}{path}"
        command = [str(self._python), str(SERVER), str(script)]
        files = (listener.fileno(), self._alive)
        process = subprocess.Popen(
            [*command, *map(str, files)],
            pass_fds=files,
            env=os.environ | {"PYTHONPATH": given},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes[script] = process
        handle = os.pidfd_open(process.pid)

        def end() -> None:
            self._selector.unregister(handle)
            os.close(handle)
            if process.wait() == 0:
                self._listen(script, listener)
            else:  # jobs that wait, and all that follow, go without
                listener.close()

        self._selector.register(handle, selectors.EVENT_READ, end)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data()


def can_be_warm() -> bool:
    """Return whether jobs of this machine can be forks: under Linux, where nobody says no."""
    return (
        sys.platform == "linux"
        and hasattr(os, "pidfd_open")
        and os.environ.get(VARIABLE) != OFF
        and shutil.which("python") is not None
    )
