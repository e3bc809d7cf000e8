"""What is learned from and what is held out, told by a digest."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")


def digest_item(seed: int, content: bytes) -> bytes:
    """Return sha256(seed, content), which decides order and split of a document or an image."""
    return hashlib.sha256(f"{seed}\0".encode() + content).digest()


def choose_split(digest: bytes, heldout_fraction: float) -> Split:
    """Return the split of what has a digest; the order may use its leading bytes."""
    # The order uses the leading bytes of the digest, so the split must use others.
    draw = int.from_bytes(digest[-8:], "big") / 2**64
    return "heldout" if draw < heldout_fraction else "train"
