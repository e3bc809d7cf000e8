"""Choice of the implementation of an operation, from its name and the device."""

from __future__ import annotations

import logging
import os
import shutil
import sysconfig
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

IMPLEMENTATIONS = ("reference", "batched", "cpu", "cuda")

_logger = logging.getLogger(__name__)


def choose_implementation(package: str, name: str, device: torch.device) -> str:
    """Return the implementation that `name` means on `device`.

    ``"auto"`` is the numba kernel on the CPU, and on CUDA the Triton kernel if there is one,
    else batched torch. Only ``"auto"`` falls back; any other choice is honoured or refused.
    Triton compiles its launcher in C when a kernel first runs; a warning says so where that
    cannot work.

    Parameters
    ----------
    package : str
        Package that holds one module per implementation, as ``dbksvd.ops.pursuit``.
    name : str
        ``"auto"`` or one of `IMPLEMENTATIONS`.
    device : torch.device
        Where the samples are.

    Raises
    ------
    ValueError
        If there is no such implementation, or it cannot run on `device` on this machine.
    """
    if name not in ("auto", *IMPLEMENTATIONS):
        raise ValueError(
            f"implementation: expected auto, {', '.join(IMPLEMENTATIONS)}, got {name!r}"
        )
    available = [
        choice for choice in IMPLEMENTATIONS if _is_available(package, choice, device.type)
    ]
    if name == "auto":
        wanted = ("cuda", "cpu", "batched")
        name = next(choice for choice in wanted if choice in available)
        _logger.debug("%s: implementation %s on %s", package, name, device)
        if device.type == "cuda" and name != "cuda" and _has_kernel(package):
            _warn_of_missing_tool()
    if name not in available:
        lacks_tool = name == "cuda" and device.type == "cuda" and _has_kernel(package)
        reason = f"; Triton needs {find_missing_tool()}" if lacks_tool else ""
        raise ValueError(
            f"implementation: expected one available on {device.type} here "
            f"({', '.join(available)}), got {name!r}{reason}"
        )
    return name


def load_implementation(package: str, name: str) -> ModuleType:
    """Import the module of an implementation; numba and Triton are imported only here."""
    return import_module(f"{package}.{name}")


@cache  # asked for whenever samples are coded on CUDA
def find_missing_tool() -> str | None:
    """Return what Triton's compilation of a launcher lacks on this machine; None if nothing."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler: gcc, clang, or the one that CC names"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        return f"the headers of Python, such as {header}"
    return None


@cache
def _warn_of_missing_tool() -> None:
    """Warn once a process."""
    _logger.warning(
        "implementation: batched torch takes the place of the Triton kernels, which are much "
        "faster but need %s",
        find_missing_tool(),
    )


def _has_kernel(package: str) -> bool:
    return find_spec("triton") is not None and find_spec(f"{package}.cuda") is not None


def _is_available(package: str, name: str, device: str) -> bool:
    if name == "cpu":
        return device == "cpu" and find_spec("numba") is not None
    if name == "cuda":
        return device == "cuda" and _has_kernel(package) and find_missing_tool() is None
    return True
