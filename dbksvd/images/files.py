"""Image files: found in a folder, decoded, checked by hash."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

# Raster formats that Pillow reads without another program; of an animation, the first frame.
FORMATS = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpeg", ".jpg"),
    "PNG": (".png",),
    "PPM": (".pgm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)


@dataclass(frozen=True)
class ImageRecord:
    """One file: a line of images.jsonl.

    ``name`` is relative to the folder, with ``/``; ``split`` is None for an image that is not
    used: a copy of another one, smaller than a tile, or more than ``max_images``.
    """

    name: str
    sha256: str
    bytes: int
    width: int
    height: int
    split: str | None


def list_names(folder: Path) -> tuple[list[str], int]:
    """Return the sorted relative names of the image files below `folder`, and the count of others.

    Folders are searched through, links to folders and hidden files are not. Pipes and the like are
    others: reading one would wait for whoever writes to it.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"images.folder: expected a folder, found none at {folder}")
    names, others = [], 0
    for parent, _, files in os.walk(folder):
        for file in files:
            path = Path(parent) / file
            is_image = file.lower().endswith(ENDINGS) and not file.startswith(".")
            if is_image and (path.is_file() or not path.exists()):  # a broken link is told later
                names.append(path.relative_to(folder).as_posix())
            else:
                others += 1
    return sorted(names), others


def decode_image(content: bytes, name: str) -> Image.Image:
    """Return the image in a file's bytes as RGB, the way up that its EXIF says.

    Transparency is dropped.

    Raises
    ------
    ValueError
        If it is no whole image of one of `FORMATS` with 8 bits a channel; the message begins with
        `name`.
    """
    try:
        image = _decode(content)
    except UnidentifiedImageError as error:
        raise ValueError(f"{name}: expected an image, its content is none") from error
    # what Pillow's readers raise on damaged files
    except (
        OSError,
        EOFError,
        SyntaxError,
        ValueError,
        TypeError,
        ArithmeticError,
        LookupError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(f"{name}: expected a whole image, got: {error}") from error
    if image.mode != "RGB":
        raise ValueError(f"{name}: expected 8 bits a channel, got Pillow's mode {image.mode}")
    return image


def _decode(content: bytes) -> Image.Image:
    """Return an image as RGB, or as it is where Pillow would clip it to 8 bits without a word."""
    image = Image.open(io.BytesIO(content), formats=list(FORMATS))
    image.load()
    if image.mode.startswith(("I", "F")):
        return image
    ImageOps.exif_transpose(image, in_place=True)
    return image.convert("RGB")


def read_image(folder: Path, record: ImageRecord) -> Image.Image:
    """Return one image as RGB after checking that it is still the one that was prepared.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is gone or has changed.
    """
    content = (folder / record.name).read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != record.sha256:
        raise ValueError(
            f"{folder / record.name}: expected sha256 {record.sha256}, got {actual}; run again"
        )
    return decode_image(content, str(folder / record.name))
