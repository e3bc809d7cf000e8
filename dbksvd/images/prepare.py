"""Images: checked, hashed, split, in a fixed random order, and cut into tiles."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dbksvd.base.files import check_hash, hash_file, read_seal, replace_folder, write_json
from dbksvd.base.old_settings import build_settings, check_at_least
from dbksvd.base.splits import SPLITS, choose_split
from dbksvd.images.files import ENDINGS, ImageRecord, decode_image, list_names

SCHEMA_VERSION = 1
IMAGES_FILE = "images.jsonl"
MANIFEST_FILE = "manifest.json"
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ImageSettings:
    """Which images are used, and how.

    Parameters
    ----------
    folder : str
        Searched with all folders below it (not through links to folders) for files whose names
        end as in `ENDINGS`; hidden files are left out.
    heldout_fraction : float
        Share of the images that is held out, between 0 and 1. All tiles of an image are in one
        split.
    seed : int
        Decides order and split.
    max_images : int, optional
        Most images used, both splits together.
    tile_size, tile_stride : int, optional
        Side of the square tiles that images are cut into, and the distance from one to the next
        (by default the side), in pixels. Tiles lie inside the image: what remains at the right
        and at the bottom is not used, nor are images smaller than a tile. Without a size the
        whole image is one tile.
    """

    folder: str
    heldout_fraction: float
    seed: int = 0
    max_images: int | None = None
    tile_size: int | None = None
    tile_stride: int | None = None

    def __post_init__(self) -> None:
        check_at_least(
            1,
            "images",
            max_images=self.max_images,
            tile_size=self.tile_size,
            tile_stride=self.tile_stride,
        )
        if not 0 < self.heldout_fraction < 1:
            raise ValueError(
                "images.heldout_fraction: expected a number between 0 and 1, "
                f"got {self.heldout_fraction!r}"
            )
        if self.tile_stride is not None and self.tile_size is None:
            raise ValueError("images.tile_stride: expected images.tile_size beside it, got none")

    def list_boxes(self, width: int, height: int) -> list[Box]:
        """Return the tiles of an image as (left, upper, right, lower), in rows, in pixels.

        Examples
        --------
        >>> ImageSettings("images", 0.5, tile_size=4, tile_stride=3).list_boxes(8, 5)
        [(0, 0, 4, 4), (3, 0, 7, 4)]
        """
        size = self.tile_size
        if size is None:
            return [(0, 0, width, height)]
        stride = self.tile_stride or size
        return [
            (left, upper, left + size, upper + size)
            for upper in range(0, height - size + 1, stride)
            for left in range(0, width - size + 1, stride)
        ]


def prepare_images(settings: Mapping[str, Any], output: str | Path) -> dict[str, Any]:
    """Decode and hash every image; write ``images.jsonl`` and ``manifest.json`` into `output`.

    An image is used once, whatever its names. Its digest, sha256(seed, sha256 of the file),
    decides place and split, so both depend on nothing but seed and content.

    Parameters
    ----------
    settings : mapping
        See :class:`ImageSettings`.
    output : path
        Folder; replaced as a whole when everything is written.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    ValueError
        If a setting is not usable, the folder holds no image, an image cannot be read (the
        message names the first), or a split gets none.
    """
    checked = build_settings(ImageSettings, settings, "images")
    started = time.time_ns()
    folder = Path(checked.folder).expanduser()
    names, others = list_names(folder)
    if not names:
        raise ValueError(
            f"images.folder: expected files that end with {', '.join(ENDINGS)}, found none among "
            f"the {others} files in {folder}"
        )
    records, counts = _choose_splits(_measure_images(folder, names), checked)
    counts["other_files"] = others
    used = {split: [record for record in records if record.split == split] for split in SPLITS}
    for split in SPLITS:
        if not used[split]:
            raise ValueError(
                f"images: expected at least 1 {split} image, got none of {len(names)} files "
                f"({', '.join(f'{name} {count}' for name, count in counts.items())})"
            )
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "images": {split: len(used[split]) for split in SPLITS},
        "tiles": {
            split: sum(len(checked.list_boxes(r.width, r.height)) for r in used[split])
            for split in SPLITS
        },
        "not_used": counts,
        "settings": asdict(checked),
    }
    with replace_folder(output) as temporary:
        with (temporary / IMAGES_FILE).open("w") as stream:
            stream.writelines(json.dumps(asdict(record)) + "\n" for record in records)
        # A file that changed since its hash was taken is younger than this.
        os.utime(temporary / IMAGES_FILE, ns=(started, started))
        manifest["sha256"] = hash_file(temporary / IMAGES_FILE)
        write_json(temporary / MANIFEST_FILE, manifest)
    return manifest


def _measure_images(folder: Path, names: Iterable[str]) -> list[ImageRecord]:
    records, failures = [], []
    for name in tqdm(names, unit=" images", unit_scale=True, desc="read images"):
        content = (folder / name).read_bytes()
        try:
            width, height = decode_image(content, name).size
        except ValueError as error:
            failures.append(str(error))
            continue
        digest = hashlib.sha256(content).hexdigest()
        records.append(ImageRecord(name, digest, len(content), width, height, None))
    if failures:
        raise ValueError(
            f"images.folder: expected readable images, {len(failures)} in {folder} are not; "
            f"the first: {failures[0]}"
        )
    return records


def _choose_splits(
    measured: list[ImageRecord], settings: ImageSettings
) -> tuple[list[ImageRecord], dict[str, int]]:
    """Return the records in their random order with their split, and why others have none."""
    salt = f"{settings.seed}\0".encode()
    counts = {"duplicates": 0, "too_small": 0, "over_max_images": 0}
    seen: set[str] = set()
    records = []
    # The sort is stable, so of equal images the first by name is the one that is used.
    for record in sorted(measured, key=lambda r: _mix(salt, r)):
        split: str | None = None
        if record.sha256 in seen:
            counts["duplicates"] += 1
        elif not settings.list_boxes(record.width, record.height):
            counts["too_small"] += 1
        elif settings.max_images is not None and len(seen) >= settings.max_images:
            counts["over_max_images"] += 1
        else:
            seen.add(record.sha256)
            split = choose_split(_mix(salt, record), settings.heldout_fraction)
        records.append(ImageRecord(**{**asdict(record), "split": split}))
    return records, counts


def _mix(salt: bytes, record: ImageRecord) -> bytes:
    return hashlib.sha256(salt + record.sha256.encode()).digest()


def load_records(output: str | Path) -> tuple[dict[str, Any], list[ImageRecord]]:
    """Return manifest and records that :func:`prepare_images` wrote, after checking their hash.

    Raises
    ------
    FileNotFoundError
        If there is no manifest.
    DamagedFileError
        If ``images.jsonl`` is missing or not what the manifest describes.
    """
    output = Path(output)
    seal = output / MANIFEST_FILE
    manifest = read_seal(seal)
    check_hash(output / IMAGES_FILE, manifest.get("sha256"), seal)
    return manifest, _parse_records(output / IMAGES_FILE)


def _parse_records(path: Path) -> list[ImageRecord]:
    with path.open() as stream:
        return [ImageRecord(**json.loads(line)) for line in stream]


def hash_images(folder: str | Path, prepared: str | Path) -> str:
    """Return a sha256 over names and contents of all image files of a folder.

    Files that have not changed since `prepared` was written, by size and times, are not read.

    Parameters
    ----------
    folder : path
        Folder of images.
    prepared : path
        ``images.jsonl`` of an earlier preparation of the folder; it need not be there.

    Raises
    ------
    OSError
        If the folder or a file cannot be read.
    """
    folder, prepared = Path(folder).expanduser(), Path(prepared)
    known: dict[str, ImageRecord] = {}
    written = 0
    if prepared.is_file():
        written = prepared.stat().st_mtime_ns
        known = {record.name: record for record in _parse_records(prepared)}
    digest = hashlib.sha256()
    for name in list_names(folder)[0]:
        state = (folder / name).stat()
        # A replaced file may keep its old modification time; its change time is new.
        changed = max(state.st_mtime_ns, state.st_ctime_ns) >= written
        record = known.get(name)
        if record is None or changed or record.bytes != state.st_size:
            content = hash_file(folder / name)
        else:
            content = record.sha256
        digest.update(os.fsencode(name) + b"\0" + content.encode() + b"\n")
    return digest.hexdigest()
