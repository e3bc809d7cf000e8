"""Numbers of README's table in the pages of docs/, so that none is typed by hand.

A page holds ``<!-- TopK SAE: variance explained -->.692<!-- / -->``: the method and the column as
README's table names them, then the cell. ``python -m workflow.numbers`` fills the cells in;
``--check`` only says whether they are current.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from dbksvd.base.files import replace_file
from workflow.readme import find_table

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"<!-- ([^:>]+): ([^>]+?) -->.*?<!-- / -->")


def read_table(table: str) -> dict[str, dict[str, str]]:
    """Return {method: {column: cell}} of a table in Markdown."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    header, _, *rows = lines
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def fill(page: str, table: Mapping[str, Mapping[str, str]]) -> str:
    """Return a page with the cells of the table at its marks.

    Raises
    ------
    ValueError
        If the table has no such method or column, or nothing in that cell.
    """

    def write(match: re.Match[str]) -> str:
        method, column = match.groups()
        if method not in table:
            raise ValueError(f"{match[0]}: expected a method of README's table, got {method!r}")
        if not table[method].get(column):
            raise ValueError(f"{match[0]}: expected a number there in README's table, found none")
        cell = table[method][column].replace("**", "")  # bold is the table's own
        return f"<!-- {method}: {column} -->{cell}<!-- / -->"

    return NUMBER.sub(write, page)


def list_pages(root: Path = ROOT) -> list[Path]:
    """Return the pages that hold such numbers."""
    pages = sorted((root / "docs").rglob("*.md"))
    return [path for path in pages if NUMBER.search(path.read_text())]


def fill_pages(root: Path = ROOT) -> list[Path]:
    """Write README's numbers into the pages; return those that changed."""
    table = read_table(find_table((root / "README.md").read_text()))
    changed = []
    for path in list_pages(root):
        text = fill(path.read_text(), table)
        if text != path.read_text():
            with replace_file(path) as temporary:
                temporary.write_text(text)
            changed.append(path)
    return changed


def main() -> None:
    """Fill the pages, or say which are not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    if not parser.parse_args().check:
        fill_pages()
        return
    table = read_table(find_table((ROOT / "README.md").read_text()))
    stale = [path for path in list_pages() if fill(path.read_text(), table) != path.read_text()]
    if stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"error: {names}: not current, run python -m workflow.numbers")


if __name__ == "__main__":
    main()
