"""Shards of activations on disk, read as one long tensor that need not fit memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from dbksvd.activations.hdf5 import LABELS, SCHEMA_VERSION, open_checked
from dbksvd.base.files import DamagedFileError, check_hash, hash_content, read_seal
from dbksvd.base.shapes import Activations

MANIFEST_FILE = "manifest.json"
SEEN = ".seen.json"  # beside a shard: its hash and the state of the file that had it
SPLITS = ("train", "heldout")


class RowLabels(NamedTuple):
    """Where n rows come from: three int32 arrays of shape (n,).

    Text: ``document`` is the line in ``documents.jsonl`` (from 0), ``position`` the index of the
    token in the document's tokens (special ones counted), ``token`` its id. Images: the line in
    ``images.jsonl``, the index in the model's sequence for a tile, and the tile's number. Ready
    and synthetic activations: ``position`` is the row in the file or draw, the others are −1.
    """

    document: np.ndarray
    position: np.ndarray
    token: np.ndarray


class ActivationShards:
    """The rows of one split of a folder of shards; make it with :meth:`open`.

    Parameters
    ----------
    folder : Path
        Folder with ``manifest.json``.
    manifest : dict
        Its content.
    split : {"train", "heldout"}
        Which rows.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], split: str) -> None:
        self.folder = folder
        self.manifest = manifest
        self.split = split
        self._shards: list[dict[str, Any]] = manifest["splits"][split]["files"]
        self._ends = np.cumsum([shard["rows"] for shard in self._shards])
        self._open: dict[int, h5py.File] = {}

    @classmethod
    def open(
        cls, folder: str | Path, split: str = "train", *, verify: bool = True
    ) -> ActivationShards:
        """Open one split of a folder written by :func:`dbksvd.activations.sharding.write_shards`.

        Parameters
        ----------
        folder : path
            The folder.
        split : {"train", "heldout"}
            Which rows.
        verify : bool
            Check hash, rows and width of every shard of the split first. This reads all of a shard,
            about 1 GB a second, unless its size, times and inode are those of an earlier check.

        Raises
        ------
        FileNotFoundError
            If there is no manifest.
        DamagedFileError
            If the manifest was changed, or a shard is missing or not as it says.
        ValueError
            If the manifest is of another version.
        """
        folder = Path(folder)
        manifest = read_seal(folder / MANIFEST_FILE)
        _check_manifest(manifest, folder, split)
        shards = cls(folder, manifest, split)
        if verify:
            shards.verify()
        return shards

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        return f"ActivationShards({str(self.folder)!r}, {self.split!r}: {len(self)} x {self.width})"

    @property
    def width(self) -> int:
        """Width d of the activations."""
        return int(self.manifest["d"])

    @property
    def input_width(self) -> int | None:
        """Columns that are the input of a pair, the others its target; None for a single place."""
        found = self.manifest["model"].get("input_width")
        return None if found is None else int(found)

    @property
    def mean(self) -> Tensor:
        """Mean of the training rows, float32 of shape (d,); the same for both splits."""
        return torch.tensor(self.manifest["mean"], dtype=torch.float32)

    @property
    def scale(self) -> float:
        """Root mean square coordinate of the training rows after centring."""
        return float(self.manifest["scale"])

    @property
    def total_variance(self) -> float:
        """Mean squared distance of this split's rows from their own mean."""
        return float(self.manifest["splits"][self.split]["total_variance"])

    @property
    def norm_limit(self) -> float | None:
        """Largest norm of a row that was kept; None where rows of any norm were."""
        limit = self.manifest.get("norms", {}).get("limit")
        return None if limit is None else float(limit)

    def describe(self) -> dict[str, Any]:
        """Return where the activations come from, in SAELens's words for its metadata.

        ``hook_name`` is TransformerLens's name of the place (its blocks count from 0, our layers
        from 1), or the module that was hooked; of a pair the input's, and ``hook_name_out`` the
        target's.
        """
        model = self.manifest["model"]
        layer = model.get("layer", -1)
        hook_name = "blocks.0.hook_resid_pre"
        if layer > 0:
            hook_name = f"blocks.{layer - 1}.hook_resid_post"
        if layer < 0 or model.get("hook_module"):
            hook_name = model.get("hook_module")
        hook_name = model.get("hook_name", hook_name)  # of another place than a block's output
        target = {"hook_name_out": model["hook_name_out"]} if "hook_name_out" in model else {}
        return {
            "model_name": model.get("model"),
            "model_revision": model.get("revision"),
            "model_sha256": model.get("model_sha256"),
            "layer": layer if layer >= 0 else None,
            "hook_name": hook_name,
            "hook_layer": max(layer - 1, 0) if layer >= 0 else None,
            "context_size": model.get("context_length"),
            "prepend_bos": bool(model.get("prepend_bos", False)),
            **target,
        }

    def verify(self, first: int = 0, step: int = 1) -> None:
        """Check that shards of this split are there and as the manifest says.

        Parameters
        ----------
        first, step : int
            Which: first, first + step, …; all by default. Several processes can share the work.

        Raises
        ------
        DamagedFileError
            For the first shard that is not.
        """
        seal = self.folder / MANIFEST_FILE
        for shard in self._shards[first::step]:
            path = self.folder / shard["file"]
            check_hash(path, shard["sha256"], seal, path.with_suffix(SEEN))
        for position in range(first, len(self._shards), step):
            self._handle(position)

    def read(self, start: int, stop: int) -> Activations:
        """Return rows `start` to `stop` as a float32 tensor of shape (stop − start, d).

        Raises
        ------
        ValueError
            If the range is not inside the split, or a value is not finite.
        """
        spans = self._locate(start, stop)
        rows = np.empty((stop - start, self.width), dtype=np.float32)
        for position, low, high, filled in spans:
            self._read_shard(position, low, high, rows[filled : filled + high - low])
        return torch.from_numpy(rows)

    def read_labels(self, start: int, stop: int) -> RowLabels:
        """Return where rows `start` to `stop` come from; :class:`RowLabels` says what it holds.

        Raises
        ------
        ValueError
            If the range is not inside the split.

        """
        spans = self._locate(start, stop)
        labels = RowLabels(*(np.empty(stop - start, np.int32) for _ in LABELS))
        for position, low, high, filled in spans:
            for name in LABELS:
                out = getattr(labels, name)[filled : filled + high - low]
                self._read_table(position, name, low, high, out)
        return labels

    def _locate(self, start: int, stop: int) -> list[tuple[int, int, int, int]]:
        """Return (shard, its first row, its last row + 1, rows before) of a range of rows."""
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"rows: expected a range inside 0 to {len(self)}, got {start}:{stop}")
        position = int(np.searchsorted(self._ends, start, side="right"))
        spans: list[tuple[int, int, int, int]] = []
        filled = 0
        while filled < stop - start:
            rows = self._shards[position]["rows"]
            first = int(self._ends[position]) - rows
            low, high = start + filled - first, min(stop - first, rows)
            spans.append((position, low, high, filled))
            filled += high - low
            position += 1
        return spans

    def iterate(self, batch_size: int, start: int = 0) -> Iterator[Activations]:
        """Yield batches of `batch_size` rows from row `start` to the end; the last may be short."""
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        for first in range(start, len(self), batch_size):
            yield self.read(first, min(first + batch_size, len(self)))

    def close(self) -> None:
        """Close all files; they open again when needed."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _read_shard(self, position: int, low: int, high: int, out: np.ndarray) -> None:
        # h5py converts to float32 here where the shard holds float16.
        self._read_table(position, "activations", low, high, out)
        finite = np.isfinite(out).all(axis=1)
        if not finite.all():
            path, row = self._path(position), low + int(np.argmin(finite))
            raise ValueError(
                f"{path}: expected finite activations, got NaN or infinity in row {row}"
            )

    def _read_table(self, position: int, name: str, low: int, high: int, out: np.ndarray) -> None:
        try:
            self._handle(position)[name].read_direct(out, np.s_[low:high])
        except OSError as error:
            reason = f"{self._path(position)}: expected readable rows {low} to {high}, got: {error}"
            raise DamagedFileError(reason, self.folder / MANIFEST_FILE) from error

    def _path(self, position: int) -> Path:
        return self.folder / str(self._shards[position]["file"])

    def _handle(self, position: int) -> h5py.File:
        if position not in self._open:
            shard = self._shards[position]
            path = self.folder / shard["file"]
            file = open_checked(path)
            expected = (shard["rows"], self.width)
            got = file["activations"].shape if "activations" in file else None
            if got != expected:
                file.close()
                reason = f"{path}: expected activations of shape {expected}, got {got}"
                raise DamagedFileError(reason, self.folder / MANIFEST_FILE)
            self._open[position] = file
        return self._open[position]


def _check_manifest(manifest: dict[str, Any], folder: Path, split: str) -> None:
    path = folder / MANIFEST_FILE
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path}: expected schema_version {SCHEMA_VERSION}, got {version!r}")
    expected = manifest.get("sha256")
    actual = hash_content({key: value for key, value in manifest.items() if key != "sha256"})
    if actual != expected:
        raise DamagedFileError(f"{path}: expected content of sha256 {expected}, got {actual}", path)
