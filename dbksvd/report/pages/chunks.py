"""Data of the pages, as script files: a page from disk may not fetch, but may load these."""

from __future__ import annotations

import base64
import gzip
import json
import os
from pathlib import Path
from typing import Any


def write_chunk(folder: Path, name: str, content: Any) -> int:
    """Write ``<name>.js``, which hands a page gzipped JSON; return its bytes.

    Parameters
    ----------
    folder : path
        Folder of the page.
    name : str
        Path of the file from there, without the ending; the page asks for it by this name.
    content : JSON-able
        What the page gets.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # surrogates cannot be written as UTF-8, but JSON can name them
    packed = gzip.compress(text.encode("utf-8", "backslashreplace"), compresslevel=9, mtime=0)
    path = Path(os.path.normpath(folder / f"{name}.js"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'DBKSVD.put("{name}","{base64.b64encode(packed).decode()}")\n')
    return path.stat().st_size


def round_all(values: Any, digits: int = 4) -> list[float]:
    """Return numbers with so many significant digits, which is all that a page shows.

    Parameters
    ----------
    values : array of shape (n,)
        Finite numbers.
    digits : int
        Significant digits.
    """
    return [float(f"{value:.{digits}g}") for value in values.tolist()]
