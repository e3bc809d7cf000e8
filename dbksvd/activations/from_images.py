"""Token activations at one site of a vision encoder, for one slice of the images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dbksvd.activations.from_text import describe_site
from dbksvd.activations.part_files import check_part, seal_part, write_part
from dbksvd.activations.rows import make_records
from dbksvd.activations.settings import ImageExtraction
from dbksvd.activations.slices import locate_slice
from dbksvd.base.local_files import expand_user
from dbksvd.base.settings import parse
from dbksvd.images.files import ImageRecord, read_image
from dbksvd.images.prepare import load_records
from dbksvd.images.settings import ImageSettings
from dbksvd.images.tiles import Tile, select_tiles
from dbksvd.models.hooks import HookPoint, find_hook, run_to_hook
from dbksvd.models.vision import ImageModel, load_image_model


def extract_image_slice(
    settings: Mapping[str, Any] | ImageExtraction,
    slice_index: int,
    output: str | Path,
    *,
    images: str | Path,
    gpus: int | None = None,
) -> dict[str, Any]:
    """Write the part of one slice of the images and its seal, as ``extract_slice`` does for text.

    Slice i of S takes the images i, i + S, … of each split, in order, and their tiles in rows,
    until its share of the tokens is full. In a row's labels, ``document`` is the image's line in
    images.jsonl (from 0), ``token`` the number of the tile in the image, ``position`` the token's
    index in the model's sequence for the tile (0 is the class token where there is one).

    Parameters
    ----------
    settings : ImageExtraction, or a mapping of the same keys
        What is extracted.
    slice_index : int
        From 0.
    output : path
        The part; the seal gets the suffix ``.json``.
    images : path
        Folder written by :func:`dbksvd.images.prepare.prepare_images`.
    gpus : int
        GPUs given to this job.

    Returns
    -------
    dict
        The seal.

    Raises
    ------
    ValueError
        If a setting is not usable, the model is no vision encoder, there are too few images, one
        has changed, or an activation is not finite.
    """
    checked = parse(ImageExtraction, settings, "activations")
    check_part(Path(output))
    ranges, attributes = locate_slice(checked, slice_index)
    manifest, records = load_records(images)
    prepared = parse(ImageSettings, manifest["settings"], "images")
    model = load_image_model(checked.model, gpus=gpus)
    hook = find_hook(model.loaded, checked.layer, checked.hook_module, checked.place)
    reader = TileReader(expand_user(prepared.folder), model, hook)
    first = next(record for record in records if record.split is not None)
    probe = Tile(0, first, 0, prepared.list_boxes(first.width, first.height)[0], np.arange(0))
    kept, width = reader.find_positions(probe, checked.image_tokens)
    # All tiles are chosen before the first one is run: too few images are found at once.
    tiles = {}
    for split, (start, stop) in ranges.items():
        numbered = [(i, record) for i, record in enumerate(records) if record.split == split]
        chosen = select_tiles(
            numbered[slice_index :: checked.slices],
            prepared,
            kept,
            quota=stop - start,
            tokens_per_tile=checked.tokens_per_document,
            what=f"{split} tokens in slice {slice_index}",
        )
        tiles[split] = list(chosen)
    dtype = checked.storage_dtype
    rows_of = {
        split: reader.extract_rows(tiles[split], checked.batch_size, dtype) for split in ranges
    }
    attributes |= _describe_extraction(checked, model, hook)
    attributes["images_sha256"] = manifest["sha256"]
    output = Path(output)
    write_part(output, ranges, rows_of, width, dtype, attributes)
    return seal_part(output, ranges)


def _describe_extraction(
    settings: ImageExtraction, model: ImageModel, hook: HookPoint
) -> dict[str, Any]:
    """Return the attributes that all parts of an extraction share."""
    return describe_site(settings, model.loaded, hook) | {
        "model_kind": "image encoder",
        "image_tokens": settings.image_tokens,
        "image_processor": json.dumps(model.processor.to_dict(), sort_keys=True, default=str),
    }


class TileReader:
    """Runs tiles through the model up to a site in it.

    Parameters
    ----------
    folder : Path
        Folder of the images.
    model, hook
        Model and site.
    """

    def __init__(self, folder: Path, model: ImageModel, hook: HookPoint) -> None:
        self.folder, self.model, self.hook = folder, model, hook
        self._open: tuple[ImageRecord, Image.Image] | None = None
        self._size: torch.Size | None = None  # of the model's input: the same for all tiles

    @property
    def input_size(self) -> torch.Size:
        """Shape of the model's input for a tile, known once one was run."""
        assert self._size is not None
        return self._size

    def find_positions(self, tile: Tile, which: str) -> tuple[np.ndarray, int]:
        """Return the positions of the wanted tokens in the model's sequence, and the width d.

        The patches are the last tokens of the sequence, the class token, if any, is the first;
        between them may be registers.

        Raises
        ------
        ValueError
            If the site gives no sequence with a token for each patch, or has no class token.
        """
        shape = self._run([tile]).shape
        config, size = self.model.loaded.model.config, self._size
        patch = getattr(config, "patch_size", None)
        if patch is None:
            raise ValueError(
                f"model: expected a vision transformer, got {type(config).__name__} without a "
                "patch_size"
            )
        height, width = patch if isinstance(patch, list | tuple) else (patch, patch)
        assert size is not None
        n_patches = (size[-2] // height) * (size[-1] // width)
        n_others = shape[1] - n_patches
        if n_others < 0:
            raise ValueError(
                f"{self.hook.name}: expected at least a token for each of {n_patches} patches, "
                f"got {shape[1]} tokens"
            )
        if which == "cls" and n_others == 0:
            raise ValueError(
                "activations.image_tokens: expected patches or all, since "
                f"{self.model.loaded.name} has no class token, got cls"
            )
        start, stop = {"cls": (0, 1), "patches": (n_others, shape[1]), "all": (0, shape[1])}[which]
        return np.arange(start, stop), shape[2]

    def extract_rows(self, tiles: list[Tile], batch_size: int, dtype: str) -> Iterator[np.ndarray]:
        """Yield the records of the kept tokens of each tile, in order."""
        for start in range(0, len(tiles), batch_size):
            batch = tiles[start : start + batch_size]
            output = self._run(batch)
            for row, tile in enumerate(batch):
                yield make_records(
                    output[row, tile.kept],
                    {"document": tile.document, "position": tile.kept, "token": tile.number},
                    f"{tile.record.name} at {self.hook.name}",
                    dtype,
                )

    def _run(self, tiles: list[Tile]) -> Tensor:
        """Return float32 activations of shape (tiles, sequence, d) on the CPU."""
        inputs = torch.cat([self._prepare(tile) for tile in tiles])
        got = run_to_hook(self.model.loaded, self.hook, {"pixel_values": inputs})
        if not isinstance(got, Tensor) or got.ndim != 3 or len(got) != len(tiles):
            shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
            raise ValueError(
                f"{self.hook.name}: expected activations of shape {(len(tiles), 'tokens', 'd')}, "
                f"got {shape}"
            )
        return got.float().cpu()

    def _prepare(self, tile: Tile) -> Tensor:
        if self._open is None or self._open[0] is not tile.record:
            self._open = (tile.record, read_image(self.folder, tile.record))
        values = self.model.prepare(self._open[1].crop(tile.box))
        self._size = self._size or values.shape
        if values.shape != self._size:
            raise ValueError(
                "model: expected an image processor that brings all images to one size, got "
                f"{tuple(values.shape[1:])} for {tile.record.name} after {tuple(self._size[1:])}; "
                "images.tile_size makes them equal"
            )
        return values
