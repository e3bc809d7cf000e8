"""A folder of images looked at before anything runs."""

from __future__ import annotations

import os

from dbksvd.base.local_files import require_file, require_folder, tell_path
from dbksvd.images.files import ENDINGS
from dbksvd.images.settings import ImageSettings

WHERE = "images.folder"
FEWEST = 2  # one for each split


def check_image_folder(settings: ImageSettings) -> None:
    """Check that there is a folder with images enough for both splits; none is decoded.

    Raises
    ------
    ValueError
        If there is not.
    """
    folder = require_folder(settings.folder, WHERE, "a folder")
    found = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            if file.lower().endswith(ENDINGS) and not file.startswith("."):
                if not found:
                    require_file(os.path.join(parent, file), WHERE, "images")  # noqa: PTH118
                found += 1
                if found == FEWEST:
                    return
    raise ValueError(
        f"{WHERE}: expected {FEWEST} files at least that end with {', '.join(ENDINGS)}, found "
        f"{found or 'none'} in {tell_path(settings.folder)}"
    )
