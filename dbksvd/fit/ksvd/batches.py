"""The batches of a fit; the next one is read while the fit works on the one before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch
from torch import Tensor

from dbksvd.base.shapes import Activations, Bias
from dbksvd.fit.ksvd.schedule import Step
from dbksvd.fit.ksvd.staging import Staging
from dbksvd.fit.reading import ActivationSource, read_cycle
from dbksvd.ops.pursuit.checks import shift_exponents
from dbksvd.ops.ranks import ALONE, Ranks


class BatchReader:
    """Centred and scaled batches for the steps of a fit, on its device.

    While an iteration computes, a thread reads the next batch, so that at most two are held. For
    a CUDA device it fills pinned memory (:class:`dbksvd.fit.ksvd.staging.Staging`) with rows as
    they are, and the device centres and scales them, to the same bits.

    Parameters
    ----------
    source : ActivationSource
        Samples.
    mean : tensor of shape (d,)
        What is subtracted.
    exponent : int
        Samples are divided by ``2 ** exponent``, which changes no digit.
    steps : sequence of Step
        All iterations of the fit.
    device : torch.device
        Where the batches go.
    ranks : Ranks
        Each rank reads its own consecutive share of a batch, and no other rows.
    """

    def __init__(
        self,
        source: ActivationSource,
        mean: Bias,
        exponent: int,
        steps: Sequence[Step],
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.source, self.mean, self.exponent = source, mean, exponent
        self.ranks = ranks
        self.steps, self.device = steps, device
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="read-batch")
        self.held: tuple[tuple[int, int], Tensor] | None = None
        self.ahead: tuple[tuple[int, int], Future[Tensor | None]] | None = None
        self.staging = Staging(source.width, device) if device.type == "cuda" else None

    def read(self, number: int) -> Activations:
        """Return the batch of step `number`, and begin to read the next one that differs."""
        wanted = self._find_rows(self.steps[number])
        if self.held is None or self.held[0] != wanted:
            self.held = None  # its memory is free for the next one
            self.held = wanted, self._take(wanted)
        if self.ahead is None:
            following = (self._find_rows(step) for step in self.steps[number + 1 :])
            rows = next((rows for rows in following if rows != wanted), None)
            if rows is not None:
                self.ahead = rows, self.thread.submit(self._load, *rows)
        return self.held[1]

    def close(self) -> None:
        """Let the thread end; a read under way is waited for."""
        self.thread.shutdown(wait=True, cancel_futures=True)

    def _take(self, wanted: tuple[int, int]) -> Activations:
        """Return a batch on the device; it was read ahead, or is read now."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None and ahead[0] == wanted:
            batch = ahead[1].result()
        else:
            if ahead is not None:
                wait([ahead[1]])  # the thread may be filling the same memory
            batch = self._load(*wanted)
        if self.staging is None:
            assert batch is not None
            return batch
        # a power of two, so this product changes no digit on any device
        batch = self.staging.send().sub_(self.mean.to(self.device))
        return batch.mul_(math.ldexp(1.0, -self.exponent))

    def _load(self, position: int, samples: int) -> Tensor | None:
        """Return a batch for the CPU; for another device, leave its rows in pinned memory."""
        if self.staging is None:
            rows = read_cycle(self.source, position, samples)
            return shift_exponents(rows - self.mean, -self.exponent)
        self.staging.fill(
            lambda first, stop: read_cycle(self.source, position + first, stop - first), samples
        )
        return None

    def _find_rows(self, step: Step) -> tuple[int, int]:
        start, stop = self.ranks.find_share(step.samples)
        return (step.position + start) % len(self.source), stop - start
