"""Small shards on disk."""

from pathlib import Path

import numpy as np

from dbksvd.activations.hdf5 import create_file, record_dtype, write_rows
from dbksvd.activations.sharding import write_shards


def make_shards(folder: Path, *, n: int, d: int, seed: int = 0) -> Path:
    """Write `n` training rows and n / 4 held-out ones of width `d`; return the folder."""
    draw = np.random.default_rng(seed)
    tables = {"train": n, "heldout": n // 4}
    part = folder.parent / "part.h5"
    attributes = {"slice": 0, "slices": 1, "dtype": "float32", "layer": 1, "model": "a model"}
    with create_file(part, tables, d, "float32", attributes) as file:
        mix = draw.standard_normal((8, d))
        for split, count in tables.items():
            rows = np.zeros(count, record_dtype(d, "float32"))
            codes = draw.exponential(size=(count, 8)) * (draw.random((count, 8)) < 0.4)
            rows["activations"] = codes @ mix + 0.05 * draw.standard_normal((count, d))
            write_rows(file[split], 0, rows)
    write_shards([part], {"rows_per_shard": max(1, n // 3)}, folder)
    return folder
