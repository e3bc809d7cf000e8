"""What collecting examples costs beside plain encoding (CPU seconds), and the memory it takes.

Text stands in as random documents of random tokens, activations as sparse sums of the dictionary's
atoms: model time, which both share, is left out, so that the share said here is an upper bound.
`--atoms 16384 --tokens 10000000` is the case of docs/pages.md (an hour on one core).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import normalize

from dbksvd.base.codes import SparseCodes
from dbksvd.base.provenance import describe_run
from dbksvd.features.collector import Collector
from dbksvd.features.kernels import ContextRows
from dbksvd.features.settings import ExampleSettings

LENGTH = 128
ROWS = 512  # coded at a time
VOCABULARY = 30_000


def draw_windows(
    atoms: torch.Tensor, k: int, tokens: int, documents: int
) -> Iterator[tuple[torch.Tensor, ContextRows]]:
    """Yield windows of documents of 128 tokens; tokens and atoms are drawn by Zipf's law."""
    m = len(atoms)
    draw, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    chance = torch.arange(1, m + 1, dtype=torch.float64).pow(-0.7)
    n = documents * LENGTH
    for first in range(0, tokens // LENGTH, documents):
        indices = torch.multinomial(chance, n * k, replacement=True, generator=generator)
        values = 1 + torch.rand(n, k, generator=generator)
        x = SparseCodes(indices.view(n, k), values, m).decode(atoms)
        token = np.minimum(draw.zipf(1.2, n), VOCABULARY).astype(np.int32)
        yield (
            x,
            ContextRows(
                starts=np.arange(documents + 1, dtype=np.int64) * LENGTH,
                document=np.arange(first, first + documents, dtype=np.int32),
                tile=np.zeros(documents, np.int32),
                length=np.full(documents, LENGTH, np.int32),
                position=np.tile(np.arange(LENGTH, dtype=np.int32), documents),
                token=token,
            ),
        )


def encode_topk(x: torch.Tensor, atoms: torch.Tensor, k: int) -> SparseCodes:
    """Return the codes of a tied TopK SAE, the cheapest encoder there is."""
    blocks = [(rows @ atoms.T).relu_().topk(k, dim=1) for rows in x.split(ROWS)]
    values, indices = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return SparseCodes(indices.masked_fill(values == 0, 0), values, len(atoms))


def main() -> None:
    """Print one line of JSON: seconds of both parts, their ratio, peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atoms", type=int, default=16_384)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--documents", type=int, default=64, help="of a window")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(1)
    atoms = normalize(torch.randn(arguments.atoms, arguments.width, generator=generator), dim=1)
    settings = ExampleSettings()
    table_bytes = settings.table_megabytes * 2**20 // 2

    def make_collector() -> Collector:
        return Collector(arguments.atoms, False, settings, table_bytes=table_bytes)

    windows = draw_windows(atoms, arguments.k, arguments.tokens, arguments.documents)
    collector, encoding, collecting, order, rows = make_collector(), 0.0, 0.0, 0, 0
    for number, (x, contexts) in enumerate(windows):
        if number == 0:  # compiles the kernels
            make_collector().add(contexts, encode_topk(x, atoms, arguments.k), 0, 0)
        start = time.process_time()
        codes = encode_topk(x, atoms, arguments.k)
        middle = time.process_time()
        collector.add(contexts, codes, order, rows)
        encoding += middle - start
        collecting += time.process_time() - middle
        order += len(contexts.document)
        rows += len(x)
    start = time.process_time()
    arrays = collector.finish()
    finishing = time.process_time() - start
    result = {
        **vars(arguments),
        "encode_seconds": round(encoding, 2),
        "collect_seconds": round(collecting, 2),
        "finish_seconds": round(finishing, 2),
        "collect_share": round((collecting + finishing) / encoding, 3),
        "collect_share_without_finish": round(collecting / encoding, 3),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "output_mib": sum(array.nbytes for array in arrays.values()) // 2**20,
        **collector.describe(),
        "run": describe_run(seed=0, device="cpu"),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
