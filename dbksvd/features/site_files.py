"""Names, writing and reading of the files of a site; what renders its pages needs no more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from dbksvd.base.saving import Folder

SCHEMA_VERSION = 2
MANIFEST_FILE = "manifest.json"
CONTEXTS_FILE = "contexts.h5"
TOKENS_FILE = "tokens.json"
TILES_FILE = "tiles.json"
SITE_FOLDER = Folder(
    (MANIFEST_FILE, CONTEXTS_FILE, TOKENS_FILE, TILES_FILE, "atoms"),
    MANIFEST_FILE,
    ("schema_version", "dictionaries"),
)
CHUNK_BYTES = 2**20  # of an array, before compression
FEW_BYTES = 64  # arrays up to this size are not worth a filter
# A page shows three digits. 13 bits, 12 of them stored, hold a number to 1 part in 8,192.
STORED_BITS = 12
# What is shown as three digits at most; all other numbers are kept as they are.
ROUNDED = (
    "value", "token_total", "nearest_cosine", "neuron_value", "logit_value", "truth_cosine",
    "probe_auc", "map",
)  # fmt: skip


def name_atoms_file(name: str) -> str:
    """Return the file of a dictionary, relative to the folder of the site."""
    return f"atoms/{name}.h5"


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file of a site as compressed HDF5.

    Parameters
    ----------
    path : Path
        The file.
    arrays : mapping of str to array
        Those of `ROUNDED` lose what no page shows; integers get the narrowest signed type that
        holds them.
    """
    kept = dict(arrays)
    for name in [*kept]:
        if name.endswith("_start"):  # sizes compress well, sums do not
            kept[f"{name.removesuffix('start')}size"] = np.diff(kept.pop(name))
    with h5py.File(path, "w", libver="latest") as file:
        for name, array in kept.items():
            packed = _round_bits(array) if name in ROUNDED else _narrow(array)
            options = {}
            if packed.nbytes > FEW_BYTES:
                row = max(packed.nbytes // len(packed), 1)
                rows = min(len(packed), max(CHUNK_BYTES // row, 1))
                options = {"chunks": (rows, *packed.shape[1:]), "shuffle": True}
                options |= {"compression": "gzip", "compression_opts": 6}
            file.create_dataset(name, data=packed, track_times=False, **options)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file of a site, all integers as int64.

    Returns
    -------
    dict of str to array
        As docs/pages.md lists them: also those that follow from others and are not in the file.
    """
    with h5py.File(path, "r", locking=False) as file:
        found = {name: dataset[()] for name, dataset in file.items()}
    arrays = {
        name: array.astype(np.int64) if array.dtype.kind == "i" else array
        for name, array in found.items()
    }
    for name in [name for name in arrays if name.endswith("_size")]:
        sums = np.r_[0, np.cumsum(arrays.pop(name))].astype(np.int64)
        arrays[f"{name.removesuffix('size')}start"] = sums
    if "value" in arrays:
        arrays["example_peak"] = _find_peaks(arrays)
    if "coactive_feature" in arrays:
        arrays |= _compare_coactive(arrays)
    return arrays


def _find_peaks(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the coefficient of each example at its peak."""
    sizes = np.diff(arrays["value_start"])
    at_peak = arrays["value_position"] == np.repeat(arrays["example_position"], sizes)
    return np.asarray(arrays["value"][at_peak])


def _compare_coactive(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return Jaccard's index and the conditional probability of features that fire together."""
    base, both = arrays["coactive_base"], arrays["coactive_count"]
    own, other = base[:, None], base[np.maximum(arrays["coactive_feature"], 0)]
    return {
        "coactive_jaccard": (both / np.maximum(own + other - both, 1)).astype(np.float32),
        "coactive_conditional": (both / np.maximum(own, 1)).astype(np.float32),
    }


def _narrow(array: np.ndarray) -> np.ndarray:
    """Return integers in the narrowest signed type that holds them."""
    if array.dtype.kind != "i" or not array.size:
        return array
    largest = max(int(array.max()), -1 - int(array.min()))
    return array.astype(np.min_scalar_type(-1 - largest))


def _round_bits(array: np.ndarray) -> np.ndarray:
    """Return float32 numbers rounded to `STORED_BITS` bits after the first, ties to even.

    The other bits are 0, which costs nothing once compressed; unlike float16, the range stays.
    """
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    dropped = np.uint32(23 - STORED_BITS)
    half = (
        np.uint32(1 << (23 - STORED_BITS - 1)) - np.uint32(1) + ((bits >> dropped) & np.uint32(1))
    )
    rounded = ((bits + half) >> dropped) << dropped
    return np.where(np.isfinite(array), rounded, bits).view(np.float32)
