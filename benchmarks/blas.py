"""Peers get the kernels of their BLAS that this CPU can run.

An OpenBLAS that is older than a CPU does not know it and takes the kernels of SSE3, which made
SPAMS half as fast as it can be. Peers bring builds of their own, each of its age.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

CHOICE = "OPENBLAS_CORETYPE"
FALLBACK = "prescott"  # what OpenBLAS calls the kernels of SSE3
KERNELS = {"avx512vl": "SkylakeX", "avx2": "Haswell"}  # widest first; flags as Linux lists them
LIBRARIES = ("numpy", "scipy.linalg", "spams")


def choose_kernels(flags: set[str]) -> str | None:
    """Return OpenBLAS's name for the widest kernels that a CPU with these flags runs."""
    return next((name for flag, name in KERNELS.items() if flag in flags), None)


def read_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the flags of the first CPU; none where they cannot be read."""
    if not path.is_file():
        return set()
    lines = path.read_text().splitlines()
    found = next((line for line in lines if line.startswith("flags")), "")
    return set(found.partition(":")[2].split())


def find_fallbacks() -> list[str]:
    """Return the files of the loaded OpenBLAS builds that do not know this CPU."""
    from threadpoolctl import threadpool_info

    for name in LIBRARIES:
        if find_spec(name.partition(".")[0]) is not None:
            import_module(name)
    return [
        library["filepath"]
        for library in threadpool_info()
        if str(library.get("architecture")).lower() == FALLBACK
    ]


def begin_again_with_kernels() -> None:
    """Start this program anew with better kernels, where an OpenBLAS has fallen back.

    They are chosen when a library is loaded. A choice that stands in ``OPENBLAS_CORETYPE`` is left.
    """
    kernels = choose_kernels(read_flags())
    if CHOICE in os.environ or kernels is None:
        return
    files = find_fallbacks()
    if not files:
        return
    names = ", ".join(Path(file).name for file in files)
    print(f"note: {names} do not know this CPU: {CHOICE}={kernels}", flush=True)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, CHOICE: kernels})
