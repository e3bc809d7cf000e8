"""Where a result comes from: seed, device, versions."""

from __future__ import annotations

import logging
import platform
import random
from importlib import metadata
from typing import Any

import numpy as np
import torch

from dbksvd.base.version import __version__

_PACKAGES = ("dbksvd", "torch", "numpy", "numba", "transformers", "sae-lens", "sae-bench")

_logger = logging.getLogger(__name__)


def describe_run(*, seed: int, device: torch.device | str) -> dict[str, Any]:
    """Return what a result was made with: seed, device, threads, package versions."""
    device = torch.device(device)
    return {
        "seed": seed,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: _find_version(name) for name in _PACKAGES},
    }


def _find_version(name: str) -> str | None:
    if name == "dbksvd":
        return __version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries we call draw from the global generator
    torch.manual_seed(seed)


def choose_device(name: str = "auto", *, gpus: int | None = None) -> torch.device:
    """Resolve a device setting once.

    A CUDA device has its number, that of this thread's current device: other threads have a
    current device of their own.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda"} or a torch device
        ``"auto"`` takes CUDA where there is a device and the job was given a GPU, else the CPU.
        A warning says so where the job was given a GPU that torch cannot use.
    gpus : int, optional
        GPUs that the scheduler gave to this job; None where there is no scheduler.

    Raises
    ------
    ValueError
        If CUDA is asked for by name and cannot be used: only ``"auto"`` may fall back.
    """
    has_cuda = torch.cuda.is_available()
    usable = has_cuda and gpus != 0
    if name == "auto":
        if usable:
            return torch.device("cuda", torch.cuda.current_device())
        if gpus:
            _logger.warning(
                "device: %d GPU given to this job, which torch %s cannot use; computing on the CPU",
                gpus,
                torch.__version__,
            )
        return torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda" and not usable:
        raise ValueError(
            f"device: expected a CUDA device for {name!r}, got none "
            f"(CUDA available: {has_cuda}, GPUs given to this job: "
            f"{'all' if gpus is None else gpus})"
        )
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return device
