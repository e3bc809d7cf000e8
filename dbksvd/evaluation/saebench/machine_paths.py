"""Paths of this machine, which SAEBench writes into its JSON, made relative."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dbksvd.base.files import read_json, replace_file


def drop_machine_paths(folder: Path, roots: Iterable[Path]) -> None:
    """Cut what only this machine knows off paths in all JSON files below `folder`.

    Parameters
    ----------
    folder : path
        Finished results.
    roots : iterable of path
        Folders that the eval was given or worked in: their paths go wherever they stand in a
        string, keys too. Those of the user, of Python and for temporary files go where a string
        begins with them, so that a text which mentions such a path is left as it is.
    """
    inside = sorted({str(root) for root in roots} - {"/"}, key=len, reverse=True)
    own = {str(Path.home()), tempfile.gettempdir(), sys.prefix}
    at_start = sorted(own - {"/", "/usr"}, key=len, reverse=True)
    pattern = re.compile(
        f"(?:{'|'.join(map(re.escape, inside))})(?![^/])/*"
        f"|^(?:{'|'.join(map(re.escape, at_start))})(?![^/])/*"
    )
    for path in sorted(folder.rglob("*.json")):
        content = read_json(path)
        cleaned = _clean(content, pattern)
        if cleaned != content:
            with replace_file(path) as temporary:
                temporary.write_text(json.dumps(cleaned, indent=2) + "\n")


def _clean(content: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(content, str):
        return (pattern.sub("", content) or ".") if pattern.search(content) else content
    if isinstance(content, list):
        return [_clean(item, pattern) for item in content]
    if isinstance(content, dict):
        return {_clean(key, pattern): _clean(value, pattern) for key, value in content.items()}
    return content
