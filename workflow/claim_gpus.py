"""Run a command on GPUs of its own: ``python claim_gpus.py COUNT COMMAND…``.

Jobs that run side by side on a workstation would all take its first GPU. Each claims as many as it
was given, says which by CUDA_VISIBLE_DEVICES, and becomes its command. A claim is an abstract
socket of Linux: binding one takes it or fails, and the kernel frees it with the last process that
holds it, however that ends.

Nothing is claimed for a job without GPUs, where there are fewer than two to choose from, and under
Slurm, which deals them out itself.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from itertools import count, islice

VARIABLE = "CUDA_VISIBLE_DEVICES"


def main() -> None:
    """Claim, then become the command."""
    wanted, *command = sys.argv[1:]
    chosen = claim_gpus(int(wanted))
    if chosen:
        os.environ[VARIABLE] = ",".join(chosen)
    os.execvp(command[0], command)


def claim_gpus(wanted: int) -> list[str]:
    """Claim the GPUs that the fewest other jobs have claimed.

    Parameters
    ----------
    wanted : int
        How many; where there are fewer, all of them.

    Returns
    -------
    list of str
        Those chosen, as CUDA_VISIBLE_DEVICES names them; empty where there was nothing to choose.
    """
    if wanted < 1 or "SLURM_JOB_ID" in os.environ:
        return []
    names = list_gpus()
    if len(names) < 2:
        return []
    chosen: list[str] = []
    # A GPU has any number of places: its second is for a profile that allows more jobs than GPUs.
    for place in count():
        free = (n for n in names if n not in chosen and claim_name(f"dbksvd-gpu-{n}-{place}"))
        chosen += list(islice(free, min(wanted, len(names)) - len(chosen)))
        if len(chosen) == min(wanted, len(names)):
            break
    return chosen


def list_gpus() -> list[str]:
    """Return the GPUs to choose from: those of CUDA_VISIBLE_DEVICES, else the numbers of all."""
    visible = os.environ.get(VARIABLE)
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return []
    found = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(found))]


def claim_name(name: str) -> bool:
    """Hold `name` until this process and the command it becomes have ended; False if it is held."""
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(f"\0{name}")
    except OSError as error:
        holder.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    os.set_inheritable(holder.detach(), True)  # open for the command too
    return True


if __name__ == "__main__":
    main()
