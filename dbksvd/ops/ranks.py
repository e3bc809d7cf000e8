"""The processes that work on one fit, each on its own samples, and the sums they share.

A fit that runs alone is rank 0 of 1: then nothing here copies, sends or waits. Under ``torchrun``
all that ranks exchange are sums of tensors whose size does not grow with the number of samples;
every rank has the same sums to the last bit, and so takes the same decisions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed

# Longest wait for another rank: more than it takes to read a batch or to write a checkpoint.
TIMEOUT = timedelta(minutes=10)
# A checksum has so many that float64 holds it.
CHECKSUM_BITS = (1 << 52) - 1


class Ranks:
    """One process among those of a fit.

    Parameters
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        Number of processes. Where it is above 1, ``torch.distributed`` must be ready for use.

    Attributes
    ----------
    sums : int
        Sums over ranks so far.
    summed_bytes : int
        Bytes of this rank that went into these sums. A ring sends and receives
        ``2 (size − 1) / size`` times as many.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        if not 0 <= rank < size:
            raise ValueError(f"rank: expected 0 to {size - 1}, got {rank}")
        self.rank, self.size = rank, size
        self.sums = self.summed_bytes = 0

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files, logs and decides what only one can decide."""
        return self.rank == 0

    def find_share(self, n: int) -> tuple[int, int]:
        """Return the rows ``[start, stop)`` of this rank: consecutive, nearly equal shares of `n`.

        Examples
        --------
        >>> [Ranks(rank, 3).find_share(10) for rank in range(3)]
        [(0, 3), (3, 6), (6, 10)]
        """
        return n * self.rank // self.size, n * (self.rank + 1) // self.size

    def sum_(self, x: Tensor) -> Tensor:
        """Replace a contiguous tensor by its sum over all ranks; return it.

        Raises
        ------
        ConnectionError
            If another rank has ended, or does not answer for `TIMEOUT`.
        """
        return self._reduce_(x, distributed.ReduceOp.SUM)

    def sum_numbers(self, *numbers: float) -> list[float]:
        """Return the sum of each number over all ranks, in float64."""
        if self.size == 1:
            return list(numbers)
        return list(self.sum_(torch.tensor(numbers, dtype=torch.float64)).tolist())

    def find_largest(self, number: float) -> float:
        """Return the largest of the ranks' numbers."""
        if self.size == 1:
            return number
        x = torch.tensor([number], dtype=torch.float64)
        return float(self._reduce_(x, distributed.ReduceOp.MAX))

    def ask_first(self, number: float) -> float:
        """Return the number of rank 0, for numbers such as times that differ between ranks."""
        return self.sum_numbers(number if self.is_first else 0.0)[0]

    def check_alike(self, x: Tensor, what: str) -> None:
        """Check that all ranks hold the same bits.

        Compared is a checksum: bits of a row are summed, sums of rows weighed by their number.

        Parameters
        ----------
        x : float32 or float64 tensor of shape (m, d)
            What each rank has made for itself out of the same sums.
        what : str
            What it is, for the message.

        Raises
        ------
        ValueError
            If they do not: ranks then choose differently, and what they learn is worth nothing.
        """
        if self.size == 1:
            return
        rows = x.detach().contiguous().view(torch.int32).sum(dim=1, dtype=torch.int64)
        numbers = torch.arange(1, len(rows) + 1, device=rows.device)
        checksum = int((rows * numbers).sum()) & CHECKSUM_BITS
        ends = torch.tensor([checksum, -checksum], dtype=torch.float64)
        if self._reduce_(ends, distributed.ReduceOp.MAX).sum() != 0:
            raise ValueError(
                f"ranks: expected the same {what} on all of {self.size} ranks, got others: all "
                "need the same model of GPU or processor, and the same versions of packages"
            )

    def _reduce_(self, x: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
        if self.size == 1:
            return x
        try:
            distributed.all_reduce(x, operation)
        except RuntimeError as error:
            raise ConnectionError(
                f"rank {self.rank} of {self.size}: another rank has ended or does not answer: "
                f"{str(error).splitlines()[0]}"
            ) from error
        self.sums += 1
        self.summed_bytes += x.numel() * x.element_size()
        return x


ALONE = Ranks()


def count_local_ranks() -> int:
    """Return how many ranks share this machine; 1 without ``torchrun``."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1


def choose_gpu() -> int:
    """Return the number of the GPU that is this rank's on its machine; 0 without ``torchrun``.

    Raises
    ------
    ValueError
        If the machine has fewer GPUs than ranks.
    """
    number = _find_local_rank()
    if number >= torch.cuda.device_count():
        raise ValueError(
            f"ranks: expected at most one for each of {torch.cuda.device_count()} GPUs of a "
            f"machine, got {count_local_ranks()}"
        )
    return number


def _find_local_rank() -> int:
    return int(os.environ["LOCAL_RANK"]) if distributed.is_torchelastic_launched() else 0


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Yield this process's rank: 0 of 1, or what ``torchrun`` started it as.

    Tensors on the CPU go by gloo, those on CUDA by NCCL.
    """
    size = int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1
    if size == 1:
        yield ALONE
        return
    has_gpu = _find_local_rank() < torch.cuda.device_count()
    has_nccl = has_gpu and distributed.is_nccl_available()
    if has_gpu:
        torch.cuda.set_device(_find_local_rank())
    distributed.init_process_group("cpu:gloo,cuda:nccl" if has_nccl else "gloo", timeout=TIMEOUT)
    yield Ranks(distributed.get_rank(), size)
    # not after an error: the others may be gone, and the end of the process closes all
    distributed.destroy_process_group()
