"""Which tiles of which images are used, and which of their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dbksvd.images.files import ImageRecord
from dbksvd.images.settings import Box, ImageSettings


@dataclass(frozen=True)
class Tile:
    """One tile: its index in all images, and the positions of the tokens that are kept."""

    document: int
    record: ImageRecord
    number: int
    box: Box
    kept: np.ndarray


def select_tiles(
    images: list[tuple[int, ImageRecord]],
    settings: ImageSettings,
    kept: np.ndarray,
    *,
    quota: int,
    tokens_per_tile: int | None,
    what: str = "tokens",
) -> Iterator[Tile]:
    """Yield tiles in order until exactly `quota` tokens are kept; the last gives no more.

    Parameters
    ----------
    images : list of (int, ImageRecord)
        Line in images.jsonl, and image, in the order of use.
    settings : ImageSettings
        How images are cut.
    kept : integer array
        Positions of the tokens that may be kept of a tile.
    quota : int
        Tokens wanted.
    tokens_per_tile : int or None
        Most tokens kept of a tile, drawn with image and tile as seed.
    what : str
        What is counted, for messages.

    Raises
    ------
    ValueError
        If the images end before.
    """
    total = 0
    for document, record in images:
        for number, box in enumerate(settings.list_boxes(record.width, record.height)):
            chosen = kept
            if tokens_per_tile is not None and len(kept) > tokens_per_tile:
                draw = np.random.default_rng([document, number])
                chosen = np.sort(draw.choice(kept, size=tokens_per_tile, replace=False))
            chosen = chosen[: quota - total]
            total += len(chosen)
            yield Tile(document, record, number, box, chosen)
            if total == quota:
                return
    raise ValueError(f"images: expected {quota} {what}, got {total} from {len(images)} images")
