"""Tiles of images as small pictures inside the data files, with the patch that fires marked."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image, ImageDraw

from dbksvd.base.local_files import expand_user

SIDE = 112  # pixels
QUALITY = 70  # of JPEG: two sides of 45 tiles of a photograph stay under 300 kB

Tiles = Callable[[int, int, int], tuple[str, str]]


def open_tiles(tiles: Mapping[str, Any]) -> Tiles:
    """Return a function of (document, tile, position) that gives an image's name and a data URL.

    Parameters
    ----------
    tiles : mapping
        Content of ``tiles.json``.

    Raises
    ------
    FileNotFoundError, ValueError
        When the function is called, if the image is gone or cannot be read.
    """
    from dbksvd.images.files import decode_image

    folder, (rows, columns) = expand_user(tiles["folder"]), tiles["grid"]

    def show(document: int, tile: int, position: int) -> tuple[str, str]:
        image = tiles["images"][str(document)]
        path = folder / image["name"]
        picture = decode_image(path.read_bytes(), str(path)).crop(image["boxes"][str(tile)])
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        patch = position - tiles["first_patch"]
        if 0 <= patch < rows * columns:
            row, column = divmod(patch, columns)
            width, height = SIDE / columns, SIDE / rows
            left, top = column * width, row * height
            frame = (left, top, left + width - 1, top + height - 1)
            ImageDraw.Draw(picture).rectangle(frame, outline=(255, 80, 0), width=2)
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=QUALITY, optimize=True)
        return image[
            "name"
        ], f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"

    return show


def refuse_tiles(_document: int, _tile: int, _position: int) -> tuple[str, str]:
    """Say that there are no images."""
    raise ValueError("tiles: expected activations of images, got text")
