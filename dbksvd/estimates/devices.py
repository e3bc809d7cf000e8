"""Assumed rates of devices, for estimates of cost."""

from __future__ import annotations

from dataclasses import dataclass

from dbksvd.base.work import Work


@dataclass(frozen=True)
class Device:
    """Assumed rates, of one GPU or one CPU core.

    Parameters
    ----------
    name : str
        What it is.
    peak : float
        Operations per second that its maker states.
    model, products, steps : float
        Share of `peak` that the language model, matrix products and pursuit steps reach.
    disk : float
        Bytes per second.
    start, start_eval : float
        Seconds in which a job of a fit, or of SAEBench, imports what it needs.
    """

    name: str
    peak: float
    model: float
    products: float
    steps: float
    disk: float = 1e9
    start: float = 10.0
    start_eval: float = 30.0

    def count_seconds(self, work: Work) -> float:
        """Return the seconds of `work`, without the start of its job."""
        rates = ((work.model, self.model), (work.products, self.products), (work.steps, self.steps))
        return work.host_seconds + sum(flops / (share * self.peak) for flops, share in rates)


# GPU: dense bfloat16 peaks of NVIDIA's data sheets. The shares are assumptions, nothing was
# measured: products of a pursuit are float32, and its steps wait for memory.
# CPU: shares of a nominal 100 GFLOP/s that the default experiment reached on one core.
DEVICES = {
    "a100": Device("A100", 312e12, 0.35, 0.15, 0.01),
    "h100": Device("H100", 989e12, 0.30, 0.10, 0.005),
    "cpu": Device("CPU core", 1e11, 2.0, 0.6, 0.25, disk=2e8, start=5.0, start_eval=12.0),
}
