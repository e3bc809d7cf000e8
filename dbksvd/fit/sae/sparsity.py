"""Reaching a wanted L0 where the architecture has no k: the sparsity coefficient is steered."""

from __future__ import annotations

import math
from typing import Any

from sae_lens.training.optim import CoefficientScheduler

EVERY = 5
INTEGRAL = 0.15
PROPORTIONAL = 1.0
LARGEST_ERROR = 0.5
MEMORY = 0.7
RAMP_FRACTION = 0.3
FROZEN_FRACTION = 0.05
# L0 of a batch in which nothing is active, in units of the target.
SMALLEST_L0 = 0.01


class SparsityController:
    """Proportional-integral feedback on the logarithm of the sparsity coefficient c of a loss.

    Every 5th step, with L0 a running geometric mean over training batches and e = log(L0 / target)
    cut to ±0.5,

        base ← base · exp(0.15 · e),    c = base · exp(1.0 · e)

    The target falls from the first L0 seen to k, geometrically, over the first 30 % of the steps:
    a coefficient that drives L0 down at once overshoots and kills latents. In the last 5 % of
    the steps c stays as it is.

    Parameters
    ----------
    scheduler : CoefficientScheduler
        SAELens's holder of the coefficient; its final value is moved.
    target : float
        Wanted non-zeros a sample, k.
    n_steps : int
        Steps of the whole training.
    """

    def __init__(self, scheduler: CoefficientScheduler, target: float, n_steps: int) -> None:
        self.scheduler, self.target = scheduler, target
        self.ramp_steps = max(1, round(n_steps * RAMP_FRACTION))
        self.last_step = round(n_steps * (1 - FROZEN_FRACTION))
        self.base = float(scheduler.final_value)
        self.first: float | None = None
        self.smooth = 0.0

    def is_due(self, step: int) -> bool:
        """Return whether the controller wants to see step `step` (from 1)."""
        return step % EVERY == 0 and step <= self.last_step

    def update(self, l0: float, step: int) -> None:
        """Move the coefficient after step `step`, whose batch had a mean L0 of `l0`."""
        excess = math.log(max(l0 / self.target, SMALLEST_L0))
        if self.first is None:
            self.first = self.smooth = excess
        self.smooth = MEMORY * self.smooth + (1 - MEMORY) * excess
        ramp = self.first * max(0.0, 1 - step / self.ramp_steps)
        error = max(-LARGEST_ERROR, min(self.smooth - ramp, LARGEST_ERROR))
        self.base *= math.exp(INTEGRAL * error)
        self.scheduler.final_value = self.base * math.exp(PROPORTIONAL * error)

    def state_dict(self) -> dict[str, Any]:
        """Return what changes, JSON-able."""
        return {"base": self.base, "first": self.first, "smooth": self.smooth}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state again."""
        vars(self).update(state)
