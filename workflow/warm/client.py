"""Run a script as ``python client.py SCRIPT ARGUMENTS…``: in a fork of its warm process, or here.

What starts this sees one process that reads, writes and ends as the script does. Where no warm
process serves the script, this process becomes ``python SCRIPT ARGUMENTS…`` itself.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import sys

# The first part of the names of the sockets, which Snakemake's process listens on (scripts.py).
VARIABLE = "DBKSVD_WARM"
# A job, as the script's process answers. It then sends the status of `os.waitpid`.
TAKEN = b"+"
PID = STATUS = struct.Struct("!i")
SIZE = struct.Struct("!q")


def main() -> None:
    """Ask the warm process of the script; become the script where there is none."""
    arguments = sys.argv[1:]
    status = ask(arguments)
    if status is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    if os.WIFSIGNALED(status):  # end as the job did
        number = os.WTERMSIG(status)
        signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
        os.kill(os.getpid(), number)
    sys.exit(os.WEXITSTATUS(status))


def ask(arguments: list[str]) -> int | None:
    """Return how the job ended that the warm process forked; None where it took none."""
    name, script = os.environ.get(VARIABLE, ""), arguments[0]
    if not name or not script.endswith(".py"):
        return None
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(name_socket(name, script))
            send_request(server, arguments)
            answer = server.recv(1)
        except OSError:
            return None
        return wait_for(server, script) if answer == TAKEN else None


def name_socket(name: str, script: str) -> str:
    """Return the abstract socket of a script, which leaves no file behind."""
    return f"\0{name}-{script.rpartition('/')[2]}"


def send_request(server: socket.socket, arguments: list[str]) -> None:
    """Send what the job would have of this process: its files, folder and environment."""
    request = {
        "arguments": arguments,
        "folder": os.getcwd(),  # noqa: PTH109 - pathlib takes as long to import as all else
        "environment": dict(os.environ),
        "python": sys.executable,
        "pid": os.getpid(),
    }
    content = json.dumps(request).encode("utf-8", "surrogateescape")
    socket.send_fds(server, [SIZE.pack(len(content))], [0, 1, 2])
    server.sendall(content)


def wait_for(server: socket.socket, script: str) -> int:
    """Return the status of the job. What asks this process to stop, asks the job."""
    pid = PID.unpack(receive(server, PID.size))[0]
    # A terminal interrupts the job too, as it is of the same process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _frame: tell(pid, number))
    try:
        return int(STATUS.unpack(receive(server, STATUS.size))[0])
    except (OSError, struct.error):
        sys.exit(f"error: {script}: its process was lost; was it killed, or out of memory?")


def tell(pid: int, number: int) -> None:
    """Send a signal to the job, if it has not just ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def receive(connection: socket.socket, size: int) -> bytes:
    """Return `size` bytes, or fewer where the other end is gone."""
    parts = b""
    while len(parts) < size and (part := connection.recv(size - len(parts))):
        parts += part
    return parts


if __name__ == "__main__":
    main()
