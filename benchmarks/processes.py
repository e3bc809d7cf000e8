"""Fresh processes for measurements, and the memory of a process as the kernel counts it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_ROOT = Path(__file__).parents[1]


def run_fresh(script: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a script in a process of its own; return the JSON of the last line that it prints.

    Raises
    ------
    SystemExit
        With the last line of its errors, if it fails.
    """
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = subprocess.run(
        [sys.executable, script, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemExit(f"error: {Path(script).name} {' '.join(arguments)}: {reason}")
    printed: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return printed


def read_peak_memory() -> int:
    """Return the largest resident set so far, in bytes.

    On Linux from ``VmHWM``: ``ru_maxrss`` of a process also counts the one that started it.
    """
    found = _read_status("VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_memory() -> int:
    """Return the resident set in bytes; where the kernel does not say, its peak so far."""
    found = _read_status("VmRSS")
    return read_peak_memory() if found is None else found


def _read_status(key: str) -> int | None:
    if not _STATUS.is_file():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None
