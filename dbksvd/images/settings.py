"""Settings of a folder of images."""

from __future__ import annotations

from pydantic import Field, model_validator

from dbksvd.base.settings import Count, Seed, Settings, Text

Box = tuple[int, int, int, int]


class ImageSettings(Settings):
    """Which images are used, and how they are cut."""

    folder: Text
    """Folder that is searched, with all folders below it, for image files that are not hidden."""
    heldout_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the images that is held out; all tiles of an image are in one split."""
    seed: Seed = 0
    """Decides order and split."""
    max_images: Count | None = None
    """Most images used, both splits together; null uses all."""
    tile_size: Count | None = None
    """Side of the square tiles that images are cut into, in pixels; null takes the whole image.
    What remains at the right and at the bottom is not used, nor are images smaller than a tile.
    """
    tile_stride: Count | None = None
    """Distance from one tile to the next, in pixels; null is the side."""

    @model_validator(mode="after")
    def _check_stride(self) -> ImageSettings:
        if self.tile_stride is not None and self.tile_size is None:
            raise ValueError("tile_stride: expected images.tile_size beside it, got none")
        return self

    def list_boxes(self, width: int, height: int) -> list[Box]:
        """Return the tiles of an image as (left, upper, right, lower), in rows, in pixels.

        Examples
        --------
        >>> ImageSettings(folder="images", tile_size=4, tile_stride=3).list_boxes(8, 5)
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
