"""Parts in, globally shuffled shards out, without holding everything in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dbksvd.activations.hdf5 import (
    SCHEMA_VERSION,
    check_parts,
    create_file,
    iterate_blocks,
    record_dtype,
    write_rows,
)
from dbksvd.activations.norm_notes import describe_norms
from dbksvd.activations.norms import (
    NORM_LIMIT_FILE,
    NormLimit,
    NormTally,
    measure_norms,
)
from dbksvd.activations.shard_settings import ShardSettings
from dbksvd.activations.shards import MANIFEST_FILE, SPLITS
from dbksvd.activations.split_checks import KeptRows, check_kept, check_split
from dbksvd.base.files import hash_content, hash_file, write_json
from dbksvd.base.saving import Folder
from dbksvd.base.settings import parse

logger = logging.getLogger(__name__)

BLOCK_BYTES = 2**26
SHARDS_FOLDER = Folder(
    (MANIFEST_FILE, NORM_LIMIT_FILE, *(f"{split}-*.h5" for split in SPLITS)),
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
) -> dict[str, Any]:
    """Shuffle all rows of `parts` into shards and describe them in ``manifest.json``.

    Every order of the rows of a split is equally likely: each block read from the parts is dealt
    to the shards by a multivariate hypergeometric draw over the room they have left, and each
    shard is shuffled in memory at the end. Memory holds one block, one shard (twice while it is
    shuffled), and one norm for each row.

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
    norms = {split: _measure_norms(paths, split, block_rows) for split in SPLITS}
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
            centre[split] = _deal_rows(paths, split, tally, sizes, folder, generator, block_rows)
            counts = {
                "rows": centre[split].rows,
                "masked_rows": int((~kept).sum()),
                "zero_rows": centre[split].zero_rows,
                "distinct_rows": centre[split].count_distinct(),
                "total_variance": centre[split].variance,
            }
            check_split(split, counts, centre[split].mean, dtype)
            files = [
                _finish_shard(folder, split, i, size, width, shared, generator)
                for i, size in enumerate(tqdm(sizes, unit="shard", desc=f"shuffle {split}"))
            ]
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


def _measure_norms(paths: Sequence[Path], split: str, step: int) -> np.ndarray:
    """Return the norm of every row, float32 of shape (rows,)."""
    norms = []
    for path, start, records in iterate_blocks(paths, split, step):
        block = measure_norms(records["activations"])
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
    paths: Sequence[Path],
    split: str,
    tally: NormTally,
    sizes: Sequence[int],
    folder: Path,
    generator: np.random.Generator,
    step: int,
) -> KeptRows:
    """Append every kept row to a temporary file of its shard; return the moments of all."""
    room = np.array(sizes)
    moments: KeptRows | None = None
    offset = 0
    with tqdm(total=len(tally.kept), unit=" rows", unit_scale=True, desc=f"deal {split}") as bar:
        for _, _, records in iterate_blocks(paths, split, step):
            bar.update(len(records))
            chosen = tally.take(offset, records)
            offset += len(records)
            moments = moments or KeptRows.empty(chosen["activations"].shape[1])
            moments.add(chosen["activations"])
            counts = generator.multivariate_hypergeometric(room, len(chosen))
            room -= counts
            chosen = chosen[generator.permutation(len(chosen))]
            for shard, piece in enumerate(np.split(chosen, np.cumsum(counts)[:-1])):
                if len(piece):
                    with _dealt_file(folder, split, shard).open("ab") as stream:
                        stream.write(piece.view(np.uint8).data)
    assert moments is not None
    return moments


def _dealt_file(folder: Path, split: str, shard: int) -> Path:
    return folder / f"{split}-{shard:05d}.dealt"


def _finish_shard(
    folder: Path,
    split: str,
    shard: int,
    rows: int,
    width: int,
    shared: Mapping[str, Any],
    generator: np.random.Generator,
) -> dict[str, Any]:
    """Shuffle one shard in memory, write it, and return its entry in the manifest."""
    dealt = _dealt_file(folder, split, shard)
    records = np.fromfile(dealt, record_dtype(width, shared["dtype"]))
    assert len(records) == rows
    path = dealt.with_suffix(".h5")
    attributes = {**shared, "split": split, "shard": shard, "rows": rows}
    with create_file(path, {"/": rows}, width, shared["dtype"], attributes) as file:
        write_rows(file, 0, records[generator.permutation(rows)])
    dealt.unlink()
    return {"file": path.name, "rows": rows, "sha256": hash_file(path)}


def _list_quantiles(norms: np.ndarray) -> dict[str, float]:
    values = np.quantile(norms.astype(np.float64), NORM_QUANTILES)
    return {str(q): float(value) for q, value in zip(NORM_QUANTILES, values, strict=True)}
