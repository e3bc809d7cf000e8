"""What every fit reads its samples from, and how it tells that they are the same.

Apart from :mod:`dbksvd.fit.reading`, so that the fit of an SAE does not depend on the pursuit.
"""

from __future__ import annotations

import hashlib
from typing import Protocol, runtime_checkable

from dbksvd.base.shapes import Activations

FINGERPRINT_ROWS = 64


@runtime_checkable
class ActivationSource(Protocol):
    """Shuffled samples that can be read by ranges of rows; ``ActivationShards`` is one.

    A source may also have ``mean``, a tensor of shape (d,), which then is not computed again, and
    ``fingerprint``, a text, where reading rows costs much.
    """

    @property
    def width(self) -> int:
        """Width d of a sample."""
        ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Activations:
        """Return rows ``start … stop − 1`` as a float32 CPU tensor of shape (stop − start, d)."""
        ...


def fingerprint_source(source: ActivationSource) -> str:
    """Return a hash of size, first and last rows: enough to tell that a checkpoint is of them."""
    known = getattr(source, "fingerprint", None)
    if isinstance(known, str):
        return known
    n = len(source)
    digest = hashlib.sha256(f"{n} {source.width}".encode())
    for start in (0, max(0, n - FINGERPRINT_ROWS)):
        rows = source.read(start, min(n, start + FINGERPRINT_ROWS))
        digest.update(rows.contiguous().numpy().tobytes())
    return digest.hexdigest()
