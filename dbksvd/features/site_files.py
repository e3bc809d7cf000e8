"""Names and reading of the files of a site; what renders its pages needs no more than this."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from dbksvd.base.saving import Folder

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
CONTEXTS_FILE = "contexts.safetensors"
TOKENS_FILE = "tokens.json"
TILES_FILE = "tiles.json"
SITE_FOLDER = Folder(
    (MANIFEST_FILE, CONTEXTS_FILE, TOKENS_FILE, TILES_FILE, "atoms"),
    MANIFEST_FILE,
    ("schema_version", "dictionaries"),
)


def name_atoms_file(name: str) -> str:
    """Return the file of a dictionary, relative to the folder of the site."""
    return f"atoms/{name}.safetensors"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file of a site, all integers as int64."""
    return {
        name: array.astype(np.int64) if array.dtype.kind == "i" else array
        for name, array in load_file(path).items()
    }
