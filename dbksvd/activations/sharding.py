"""Parts in, globally shuffled shards out, without holding everything in memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dbksvd.activations.hdf5 import (
    LABELS,
    SCHEMA_VERSION,
    RowBlock,
    check_parts,
    create_file,
    iterate_blocks,
    iterate_tables,
    record_dtype,
    write_records,
)
from dbksvd.activations.norm_notes import describe_norms
from dbksvd.activations.norms import (
    NORM_LIMIT_FILE,
    NormLimit,
    NormTally,
    measure_norms,
)
from dbksvd.activations.row_kernels import copy_rows
from dbksvd.activations.shard_settings import ShardSettings
from dbksvd.activations.shards import MANIFEST_FILE, SEEN, SPLITS
from dbksvd.activations.split_checks import KeptRows, check_kept, check_split
from dbksvd.base.ahead import map_ahead
from dbksvd.base.files import hash_content, hash_file, write_json
from dbksvd.base.saving import Folder
from dbksvd.base.settings import parse

logger = logging.getLogger(__name__)

BLOCK_BYTES = 2**26
ENDS = (".h5", SEEN)
SHARDS_FOLDER = Folder(
    (MANIFEST_FILE, NORM_LIMIT_FILE, *(f"{split}-*{end}" for split in SPLITS for end in ENDS)),
    MANIFEST_FILE,
    ("d", "splits"),
)
NORM_QUANTILES = (0, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1)


def write_shards(
    parts: Sequence[str | Path],
    settings: Mapping[str, Any] | ShardSettings,
    output: str | Path,
    *,
    block_rows: int | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Shuffle all rows of `parts` into shards and describe them in ``manifest.json``.

    Every order of the rows of a split is equally likely: each block read from the parts is dealt
    to the shards by a multivariate hypergeometric draw over the room they have left, and each
    shard is shuffled in memory at the end. Memory holds for each thread one block or one shard, one
    more of them, and one norm for each row.

    Parameters
    ----------
    parts : sequence of paths
        All parts of one extraction, in any order.
    settings : ShardSettings, or a mapping of the same keys
        Section ``shards`` of the config.
    output : path
        Folder; replaced as a whole when everything is written. One with other files is refused.
    block_rows : int, optional
        Rows read at a time; by default as many as fit 64 MiB.
    threads : int
        Threads that measure blocks and finish shards; the result is the same with any number.

    Returns
    -------
    dict
        The manifest. ``mean`` (d floats) and ``scale`` are of the training rows:
        ``scale = sqrt(E‖x − mean‖² / d)``, the root mean square coordinate after centring.
        ``sha256`` is of all else in the manifest.

    Raises
    ------
    FileNotFoundError, ValueError
        If a part is missing, truncated, not what its seal says, of another extraction than the
        others, or holds a value that is not finite; the message names it.
    """
    checked = parse(ShardSettings, settings, "shards")
    SHARDS_FOLDER.check(output)
    paths, shared, width = check_parts(parts)
    dtype = shared["dtype"]
    block_rows = block_rows or max(1, BLOCK_BYTES // record_dtype(width, dtype).itemsize)
    norms = {split: _measure_norms(paths, split, block_rows, threads) for split in SPLITS}
    kind = shared.get("model_kind")
    limit = NormLimit.choose(checked.outlier_norm_multiple, kind, norms["train"])
    centre: dict[str, KeptRows] = {}
    splits: dict[str, Any] = {}
    with SHARDS_FOLDER.replace(output) as folder:
        for number, split in enumerate(SPLITS):
            tally = NormTally(norms[split], limit, width)
            kept = tally.kept
            check_kept(split, kept)
            generator = np.random.default_rng([checked.seed, number])
            sizes = _size_shards(int(kept.sum()), checked.rows_per_shard)
            dealt = _DealtRows(folder, split, record_dtype(width, dtype), sizes, generator)
            blocks = iterate_blocks(paths, split, block_rows)
            centre[split] = _deal_rows(blocks, tally, dealt, threads)
            counts = {
                "rows": centre[split].rows,
                "masked_rows": int((~kept).sum()),
                "zero_rows": centre[split].zero_rows,
                "distinct_rows": centre[split].count_distinct(),
                "total_variance": centre[split].variance,
            }
            check_split(split, counts, centre[split].mean, dtype)
            files = dealt.finish(shared, width, threads)
            splits[split] = {
                **counts,
                "files": files,
                "norm_quantiles": _list_quantiles(norms[split][kept]),
                **tally.describe(centre[split], labelled=kind is not None),
            }
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "d": width,
            "dtype": dtype,
            "mean": centre["train"].mean.tolist(),
            "scale": float(np.sqrt(centre["train"].variance / width)),
            "norms": limit.dump(),
            "splits": splits,
            "model": shared,
            "settings": checked.dump(),
        }
        manifest["sha256"] = hash_content(manifest)
        write_json(folder / NORM_LIMIT_FILE, {"limit": limit.value})
        write_json(folder / MANIFEST_FILE, manifest)
    _log_norms(manifest)
    return manifest


def _log_norms(manifest: Mapping[str, Any]) -> None:
    """Say which rows were left out for their norm; warn of those that are kept."""
    left_out, warning = describe_norms(manifest)
    if left_out:
        logger.info("%s", left_out)
    if warning:
        logger.warning("warning: %s", warning)


def _measure_norms(paths: Sequence[Path], split: str, step: int, threads: int) -> np.ndarray:
    """Return the norm of every row, float32 of shape (rows,)."""
    norms = []
    blocks = iterate_tables(paths, split, step, "activations")
    for (path, start, _), block in map_ahead(lambda item: measure_norms(item[2]), blocks, threads):
        if not np.isfinite(block).all():
            row = start + int(np.argmin(np.isfinite(block)))
            raise ValueError(
                f"{path}: expected finite activations, got NaN or infinity in {split} row {row}"
            )
        norms.append(block.astype(np.float32))
    return np.concatenate(norms)


def _size_shards(rows: int, rows_per_shard: int) -> list[int]:
    full, rest = divmod(rows, rows_per_shard)
    return [rows_per_shard] * full + [rest] * (rest > 0)


def _deal_rows(
    blocks: Iterator[RowBlock], tally: NormTally, dealt: _DealtRows, threads: int
) -> KeptRows:
    """Deal every kept row to its shard; return the moments of all."""

    def take() -> Iterator[tuple[RowBlock, np.ndarray]]:
        offset = 0
        for block in blocks:
            yield block, tally.take(offset, block)
            offset += len(block.activations)

    def measure(item: tuple[RowBlock, np.ndarray]) -> KeptRows:
        rows, kept = item[0].activations, item[1]
        return KeptRows.of(rows if len(kept) == len(rows) else rows[kept])

    moments: KeptRows | None = None
    bar = tqdm(
        total=len(tally.kept), unit=" rows", unit_scale=True, desc=f"deal {dealt.split}"
    )  # fmt: skip
    with bar:
        for (block, kept), found in map_ahead(measure, take(), threads):
            moments = moments or KeptRows.empty(block.activations.shape[1])
            moments.merge(found)
            dealt.add(block, kept)
            bar.update(len(block.activations))
    assert moments is not None
    return moments


class _DealtRows:
    """Rows on their way to shards, in one file of records for each shard.

    Parameters
    ----------
    folder : Path
        Where the files are.
    split : str
        Which rows.
    record : dtype
        Of a row.
    sizes : sequence of int
        Rows of each shard.
    generator : numpy.random.Generator
        What decides where a row goes.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        record: np.dtype[Any],
        sizes: Sequence[int],
        generator: np.random.Generator,
    ) -> None:
        self.folder, self.split, self.record, self.sizes = folder, split, record, sizes
        self._generator = generator
        self._room = np.array(sizes)

    def add(self, block: RowBlock, kept: np.ndarray) -> None:
        """Append the kept rows of a block to the files of shards that are drawn."""
        counts = self._generator.multivariate_hypergeometric(self._room, len(kept))
        self._room -= counts
        order = kept[self._generator.permutation(len(kept))]
        records = np.empty(len(kept), self.record)
        copy_rows(_as_bytes(block.activations), order, _as_bytes(records), 0, 0)
        for name in LABELS:
            records[name] = getattr(block, name)[order]
        for shard, piece in enumerate(np.split(records, np.cumsum(counts)[:-1])):
            if len(piece):
                with self._file(shard).open("ab") as stream:
                    stream.write(_as_bytes(piece).data)

    def finish(
        self, attributes: Mapping[str, Any], width: int, threads: int
    ) -> list[dict[str, Any]]:
        """Shuffle each shard in memory and write it; return their entries in the manifest."""

        def finish(item: tuple[int, np.ndarray]) -> dict[str, Any]:
            shard, order = item
            dealt = self._file(shard)
            records = np.fromfile(dealt, self.record)
            assert len(records) == len(order)
            path, rows = dealt.with_suffix(".h5"), len(order)
            own = {**attributes, "split": self.split, "shard": shard, "rows": rows}
            with create_file(path, {"/": rows}, width, attributes["dtype"], own) as file:
                write_records(file, records, order)
            dealt.unlink()
            return {"file": path.name, "rows": rows, "sha256": hash_file(path)}

        orders = (
            (shard, self._generator.permutation(rows)) for shard, rows in enumerate(self.sizes)
        )
        title = f"shuffle {self.split}"
        done = map_ahead(finish, orders, threads)
        return [entry for _, entry in tqdm(done, total=len(self.sizes), unit="shard", desc=title)]

    def _file(self, shard: int) -> Path:
        return self.folder / f"{self.split}-{shard:05d}.dealt"


def _as_bytes(rows: np.ndarray) -> np.ndarray:
    """Return contiguous rows (n, d) or records (n,) as uint8 of shape (n, bytes)."""
    return rows.view(np.uint8).reshape(len(rows), rows.itemsize * math.prod(rows.shape[1:]))


def _list_quantiles(norms: np.ndarray) -> dict[str, float]:
    values = np.quantile(norms.astype(np.float64), NORM_QUANTILES)
    return {str(q): float(value) for q, value in zip(NORM_QUANTILES, values, strict=True)}
