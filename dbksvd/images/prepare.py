"""Images: checked, hashed, split, in a fixed random order, and cut into tiles."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dbksvd.base.files import check_hash, hash_file, read_seal, write_json
from dbksvd.base.local_files import expand_user
from dbksvd.base.saving import Folder
from dbksvd.base.settings import parse
from dbksvd.base.splits import SPLITS, choose_split, digest_item
from dbksvd.images.files import ENDINGS, ImageRecord, decode_image, list_names
from dbksvd.images.settings import ImageSettings

SCHEMA_VERSION = 1
IMAGES_FILE = "images.jsonl"
MANIFEST_FILE = "manifest.json"
IMAGES_FOLDER = Folder((IMAGES_FILE, MANIFEST_FILE), MANIFEST_FILE, ("schema_version", "images"))


def prepare_images(
    settings: Mapping[str, Any] | ImageSettings, output: str | Path
) -> dict[str, Any]:
    """Decode and hash every image; write ``images.jsonl`` and ``manifest.json`` into `output`.

    An image is used once, whatever its names. Its digest, sha256(seed, sha256 of the file),
    decides order and split, so both depend on nothing but seed and content.

    Parameters
    ----------
    settings : ImageSettings, or a mapping of the same keys
        Section ``images`` of the config.
    output : path
        Folder; replaced as a whole when everything is written. One with other files is refused.

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
    checked = parse(ImageSettings, settings, "images")
    IMAGES_FOLDER.check(output)
    started = time.time_ns()
    folder = expand_user(checked.folder)
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
        "settings": checked.dump(),
    }
    with IMAGES_FOLDER.replace(output) as temporary:
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
    counts = {"duplicates": 0, "too_small": 0, "over_max_images": 0}
    seen: set[str] = set()
    records = []
    # The sort is stable, so of equal images the first by name is the one that is used.
    for record in sorted(measured, key=lambda r: _mix(settings.seed, r)):
        split: str | None = None
        if record.sha256 in seen:
            counts["duplicates"] += 1
        elif not settings.list_boxes(record.width, record.height):
            counts["too_small"] += 1
        elif settings.max_images is not None and len(seen) >= settings.max_images:
            counts["over_max_images"] += 1
        else:
            seen.add(record.sha256)
            split = choose_split(_mix(settings.seed, record), settings.heldout_fraction)
        records.append(ImageRecord(**{**asdict(record), "split": split}))
    return records, counts


def _mix(seed: int, record: ImageRecord) -> bytes:
    return digest_item(seed, record.sha256.encode())


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
    folder, prepared = expand_user(folder), Path(prepared)
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
