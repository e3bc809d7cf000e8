"""How many images there are, and how many patches an encoder makes of one: without decoding any."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import Any

from dbksvd.base.files import read_json
from dbksvd.base.local_files import expand_user
from dbksvd.base.splits import SPLITS, Split, choose_split, digest_item
from dbksvd.images.files import list_names
from dbksvd.images.settings import ImageSettings

USUAL_SIDE = 224  # pixels, of an encoder whose preprocessor is not at hand


def count_images(settings: ImageSettings, *, most: int) -> dict[Split, int]:
    """Return how many images each split has, of the first `most` by name, copies left out.

    Parameters
    ----------
    settings : ImageSettings
        Section ``images`` of a config. Images are split as the workflow splits them.
    most : int
        Images that are read.

    Raises
    ------
    OSError
        If there is no such folder, or an image cannot be read.
    """
    folder, counts, seen = expand_user(settings.folder), dict.fromkeys(SPLITS, 0), set()
    for name in islice(list_names(folder)[0], most):
        content = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if content not in seen:
            seen.add(content)
            digest = digest_item(settings.seed, content.encode())
            counts[choose_split(digest, settings.heldout_fraction)] += 1
    return counts


def count_patches(config: Path) -> int | None:
    """Return how many patches a vision transformer makes of an image; None where that is unknown.

    Parameters
    ----------
    config : Path
        Its ``config.json``; a ``preprocessor_config.json`` beside it says what images are cut to.
    """
    model: dict[str, Any] = read_json(config)
    model = model.get("vision_config", model)
    patch = model.get("patch_size")
    side = model.get("image_size", USUAL_SIDE)
    beside = config.with_name("preprocessor_config.json")
    if beside.is_file():
        cut = read_json(beside)
        size = cut.get("crop_size" if cut.get("do_center_crop") else "size")
        side = size.get("height") or size.get("shortest_edge") if isinstance(size, dict) else size
    elif isinstance(side, int):
        side = min(side, USUAL_SIDE)
    if not isinstance(patch, int) or not isinstance(side, int) or patch < 1:
        return None
    return (side // patch) ** 2 or None
