"""Contexts of images: one tile is one context, shown whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dbksvd.activations.from_images import TileReader
from dbksvd.activations.from_text import describe_site
from dbksvd.activations.settings import ImageExtraction
from dbksvd.base.local_files import expand_user
from dbksvd.base.settings import parse
from dbksvd.features.contexts import Contexts
from dbksvd.features.kernels import ContextRows
from dbksvd.features.settings import ExampleSettings
from dbksvd.images.prepare import load_records
from dbksvd.images.settings import ImageSettings
from dbksvd.images.tiles import Tile
from dbksvd.models.hooks import find_hook
from dbksvd.models.vision import load_image_model

WINDOW_BATCHES = 4


class ImageContexts:
    """Tiles of a folder of images through a model.

    Parameters
    ----------
    settings : ImageExtraction, or a mapping of the same keys
        Model, site, kept tokens and batch size, as the activations were extracted.
    images : path
        Folder written by :func:`dbksvd.images.prepare.prepare_images`.
    split : {"heldout", "train"}
        Which images.
    gpus : int
        GPUs given to this job.
    """

    kind = "images"

    def __init__(
        self,
        settings: Mapping[str, Any] | ImageExtraction,
        images: str | Path,
        split: str = "heldout",
        *,
        gpus: int = 0,
    ) -> None:
        self.settings = parse(ImageExtraction, settings, "activations")
        self.split = split
        self.manifest, records = load_records(images)
        self.prepared = parse(ImageSettings, self.manifest["settings"], "images")
        self.records = [(i, record) for i, record in enumerate(records) if record.split == split]
        self.model = load_image_model(self.settings.model, gpus=gpus)
        site = self.settings
        self.hook = find_hook(self.model.loaded, site.layer, site.hook_module, site.place)
        self.folder = expand_user(self.prepared.folder)
        self.reader = TileReader(self.folder, self.model, self.hook)
        probe = next(self._iterate_tiles(np.arange(0)))
        self.kept, _ = self.reader.find_positions(probe, self.settings.image_tokens)
        self.length = int(self.reader.find_positions(probe, "all")[0][-1]) + 1
        self.total: int | None = self.manifest["tiles"][split]

    def show_window(self, settings: ExampleSettings) -> tuple[int, int, int]:  # noqa: ARG002
        """Return the window of a whole tile."""
        return self.length, self.length, self.length

    def describe(self) -> dict[str, Any]:
        """Return model and data, as the manifest of a site says them."""
        model = describe_site(self.settings, self.model.loaded, self.hook)
        model |= {"model_kind": "image encoder", "image_tokens": self.settings.image_tokens}
        return {"model": model, "data": {"sha256": self.manifest["sha256"], "split": self.split}}

    def iterate(self, start: int) -> Iterator[Contexts]:
        """Yield windows of tiles."""
        tiles = islice(self._iterate_tiles(self.kept), start, None)
        batch, dtype = self.settings.batch_size, self.settings.storage_dtype
        while window := list(islice(tiles, WINDOW_BATCHES * batch)):
            records = np.concatenate(list(self.reader.extract_rows(window, batch, dtype)))
            size = len(self.kept)
            rows = ContextRows(
                starts=np.arange(len(window) + 1, dtype=np.int64) * size,
                document=np.array([tile.document for tile in window], np.int32),
                tile=np.array([tile.number for tile in window], np.int32),
                length=np.full(len(window), self.length, np.int32),
                position=records["position"],
                token=records["token"],
            )
            x = torch.from_numpy(records["activations"].astype(np.float32))
            yield Contexts(x, rows)

    def describe_tiles(self, shown: set[tuple[int, int]]) -> dict[str, Any]:
        """Return the content of ``tiles.json`` for (image, tile) pairs; see docs/pages.md."""
        records = dict(self.records)
        images: dict[str, Any] = {}
        for document, number in sorted(shown):
            record = records[document]
            boxes = self.prepared.list_boxes(record.width, record.height)
            entry = images.setdefault(str(document), {"name": record.name, "boxes": {}})
            entry["boxes"][str(number)] = list(boxes[number])
        patches = self.reader.find_positions(next(self._iterate_tiles(self.kept)), "patches")[0]
        return {
            "folder": str(self.folder),
            "first_patch": int(patches[0]),
            "grid": self._find_grid(len(patches)),
            "images": images,
        }

    def _find_grid(self, n_patches: int) -> list[int]:
        """Return rows and columns of patches of the model's input."""
        size, patch = self.reader.input_size, self.model.loaded.model.config.patch_size
        height, width = patch if isinstance(patch, list | tuple) else (patch, patch)
        grid = [size[-2] // height, size[-1] // width]
        assert math.prod(grid) == n_patches
        return grid

    def _iterate_tiles(self, kept: np.ndarray) -> Iterator[Tile]:
        for document, record in self.records:
            boxes = self.prepared.list_boxes(record.width, record.height)
            for number, box in enumerate(boxes):
                yield Tile(document, record, number, box, kept)
