"""What stands below a table; pandas is not needed to read it."""

from __future__ import annotations

from pathlib import Path


def read_notes(markdown: Path) -> list[str]:
    """Return the lines below a table of :func:`dbksvd.report.tables.write_table`.

    There are none without the file.
    """
    if not markdown.is_file():
        return []
    return markdown.read_text().strip().split("\n\n")[1:]
