"""The floor of coding on the CPU: what any pursuit over a Gram matrix must do, each part timed.

Legend: n samples, d width, m atoms, k non-zeros. The parts are the product X Dᵀ (2 n d m
operations), the Gram matrix D Dᵀ (once a call), k − 1 of its rows added to the products of each
sample, read from wherever they lie (caches here, so that no bandwidth of memory says what it
takes), and the refit on the support: k³ / 3 + 2 k² operations in float64, counted at half the rate
of the product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from benchmarks.peers import GRAM, PRODUCT

GRAM_ROWS = "k - 1 Gram rows a sample (torch)"
PARTS = (PRODUCT, GRAM, GRAM_ROWS)
# Samples whose rows are added at once, as the pursuit does: the sums stay in cache.
BLOCK = 512


def prepare_row_sums(gram: Tensor, n: int, k: int) -> Callable[[], None]:
    """Return a call that adds k − 1 rows of the Gram matrix, drawn at random, for n samples.

    Parameters
    ----------
    gram : tensor of shape (m, m)
        Products of the atoms; its values do not matter.
    n, k : int
        Samples, and non-zeros of each; with k = 1 there is nothing to add.
    """
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(gram), (n, max(0, k - 1)), generator=generator)

    def add_rows() -> None:
        for block in picks.split(BLOCK):
            F.embedding_bag(block, gram, mode="sum")

    return add_rows if k > 1 else lambda: None


def count_floor(rows: Mapping[str, Mapping[str, str]], n: int) -> float:
    """Return the least seconds of coding n samples in one call.

    Parameters
    ----------
    rows : mapping of str to mapping
        Rows of ``coding.csv`` of the parts at one shape, by contestant.
    n : int
        Samples.
    """
    seconds = {name: float(row["median_s"]) / float(row["n"]) for name, row in rows.items()}
    d, m, k = (int(rows[PRODUCT][key]) for key in "dmk")
    rate = 2.0 * d * m / seconds[PRODUCT]
    refit = (k**3 / 3 + 2 * k**2) / (rate / 2)
    return n * (seconds[PRODUCT] + seconds[GRAM_ROWS] + refit) + m * seconds[GRAM]
