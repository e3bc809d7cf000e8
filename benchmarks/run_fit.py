"""Seconds of whole DB-KSVD fits beside those of their sparse coding alone.

The coding alone is that of as many samples, in the same batches, by the atoms that the fit ended
with; what a fit adds is residuals, updates of the atoms, replacements and its log. Both are seconds
of CPU time, as a fit counts them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.data import DEFAULT_SHARDS, load_activations
from benchmarks.learners import NONNEGATIVE, SIGNED
from benchmarks.timing import describe_machine, limit_threads, print_table, write_table
from dbksvd.base.clock import read_clock
from dbksvd.dictionaries.dictionary import encode_with
from dbksvd.fit.ksvd.dbksvd import DBKSVD

HELDOUT_ROWS = 4096
COLUMNS = ("contestant", "d", "m", "k", "n", "samples", "fit_s", "coding_s")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--activations", type=Path, default=DEFAULT_SHARDS, help="folder")
    parser.add_argument("--rows", type=int, default=120_000)
    parser.add_argument("--n-atoms", type=int, default=2048)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)

    data = load_activations(options.activations, rows=options.rows, heldout_rows=HELDOUT_ROWS)
    x = data.train.rows
    with limit_threads(options.threads):
        rows = [
            {"contestant": name, **time_fit(x, options.n_atoms, options.k, nonnegative)}
            for name, nonnegative in ((SIGNED, False), (NONNEGATIVE, True))
        ]
    path = options.output / "fit.csv"
    table = [{**row, "data": data.name} for row in rows]
    print_table(write_table(table, path, describe_machine("cpu", options.threads)), COLUMNS, path)


def time_fit(x: Tensor, n_atoms: int, k: int, nonnegative: bool) -> dict[str, Any]:
    """Fit, and then code as many samples in the same batches; return sizes and seconds."""
    model = DBKSVD(n_atoms, k, nonnegative=nonnegative, seed=0).fit(x)
    batches, seen = [], 0
    for row in model.log_:
        batches.append((int(row["samples_seen"]) - seen, int(row["n_atoms"])))
        seen = int(row["samples_seen"])
    dictionary = model.dictionary_
    centred = x - dictionary.bias
    cpu = torch.device("cpu")
    settings, started = dictionary.settings, read_clock(cpu)
    for samples, held in batches:
        encode_with(centred[:samples], dictionary.atoms[:held], settings)
    return {
        **{"d": x.shape[1], "m": n_atoms, "k": k, "n": len(x), "samples": seen},
        "fit_s": float(model.log_[-1]["seconds"]),
        "coding_s": read_clock(cpu) - started,
    }


if __name__ == "__main__":
    main()
