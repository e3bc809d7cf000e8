"""Parts, one a slice and site: written from records, sealed by a JSON file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dbksvd.activations.hdf5 import SCHEMA_VERSION, create_file, write_rows
from dbksvd.base.files import hash_file, write_json
from dbksvd.base.saving import check_replaceable
from dbksvd.base.splits import SPLITS


@dataclass(frozen=True)
class Part:
    """A part to be written.

    Parameters
    ----------
    path : Path
        Where it goes (HDF5).
    width : int
        Width d of the activations.
    attributes : mapping
        Attributes of the file.
    """

    path: Path
    width: int
    attributes: Mapping[str, Any]


def write_part(
    output: Path,
    ranges: Mapping[str, tuple[int, int]],
    rows_of: Mapping[str, Iterator[np.ndarray]],
    width: int,
    dtype: str,
    attributes: Mapping[str, Any],
) -> None:
    """Write the part of one slice at one site; see :func:`write_parts`."""
    lists = {split: ([records] for records in rows_of[split]) for split in rows_of}
    write_parts([Part(output, width, attributes)], ranges, lists, dtype)


def write_parts(
    parts: Sequence[Part],
    ranges: Mapping[str, tuple[int, int]],
    rows_of: Mapping[str, Iterator[list[np.ndarray]]],
    dtype: str,
) -> None:
    """Write the parts of one slice, one a site, side by side and with progress.

    Parameters
    ----------
    parts : sequence of Part
        What is written.
    ranges : mapping of split to (start, stop)
        Rows of this slice inside the rows of the split.
    rows_of : mapping of split to iterator of lists of arrays
        Records (:func:`dbksvd.activations.hdf5.record_dtype`) of each part, as many as `ranges`
        say.
    dtype : {"float32", "float16"}
        Type on disk.
    """
    tables: dict[str, int] = {split: stop - start for split, (start, stop) in ranges.items()}
    with ExitStack() as stack:
        files = [
            stack.enter_context(create_file(part.path, tables, part.width, dtype, part.attributes))
            for part in parts
        ]
        for split in SPLITS:
            start = 0
            with tqdm(total=tables[split], unit=" tokens", unit_scale=True, desc=split) as bar:
                for records in rows_of[split]:
                    for file, rows in zip(files, records, strict=True):
                        write_rows(file[split], start, rows)
                    start += len(records[0])
                    bar.update(len(records[0]))


def check_part(output: Path) -> None:
    """Check that the seal of a part would replace nothing but an older seal.

    Raises
    ------
    ValueError
        If another file has its name.
    """
    check_replaceable(output.with_suffix(".json"), ("schema_version", "sha256"))


def seal_part(output: Path, ranges: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Write the JSON beside a finished part: its rows and its hash."""
    seal = {
        "schema_version": SCHEMA_VERSION,
        "file": output.name,
        "sha256": hash_file(output),
        "rows": {split: stop - start for split, (start, stop) in ranges.items()},
    }
    write_json(output.with_suffix(".json"), seal)
    return seal
