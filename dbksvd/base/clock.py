"""The clock of fits: work of the device, whatever else the machine does meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def read_clock(device: torch.device) -> float:
    """Return a time in seconds, of which two readings give what a fit took of a device.

    On a CPU these are seconds of processor time, summed over the threads of this process: other
    jobs of the machine do not count, nor does waiting for a disk. On a GPU, which a job has to
    itself, they are seconds of the wall; the caller waits for the device first.

    Parameters
    ----------
    device : torch.device
        Where the fit computes.
    """
    return time.perf_counter() if device.type == "cuda" else time.process_time()
