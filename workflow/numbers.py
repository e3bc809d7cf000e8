"""Numbers of README's tables in the pages of docs/, so that none is typed by hand.

A page holds ``<!-- TopK SAE: variance explained -->.692<!-- / -->``: the method and the column as
README's table of the default experiment names them, then the cell. Of another experiment's table it
is ``<!-- smollm2/TopK SAE: CE loss score -->``. ``python -m workflow.numbers`` fills the cells in;
``--check`` only says whether they are current.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from dbksvd.base.files import replace_file
from workflow.readme import SHOWN, find_table

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"<!-- (?:(\w+)/)?([^:>]+): ([^>]+?) -->.*?<!-- / -->")
DEFAULT = "minilm"
Tables = Mapping[str, Mapping[str, Mapping[str, str]]]


def read_table(table: str) -> dict[str, dict[str, str]]:
    """Return {method: {column: cell}} of a table in Markdown."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    header, _, *rows = lines
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def read_tables(readme: str) -> Tables:
    """Return {experiment: {method: {column: cell}}} of README."""
    return {name: read_table(find_table(readme, name)) for name in SHOWN}


def fill(page: str, tables: Tables) -> str:
    """Return a page with the cells of the tables at its marks.

    Raises
    ------
    ValueError
        If there is no such table, method or column, or nothing in that cell.
    """

    def write(match: re.Match[str]) -> str:
        experiment, method, column = match.groups()
        table = tables.get(experiment or DEFAULT, {})
        if method not in table:
            raise ValueError(f"{match[0]}: expected a method of README's table, got {method!r}")
        if not table[method].get(column):
            raise ValueError(f"{match[0]}: expected a number there in README's table, found none")
        cell = table[method][column].replace("**", "")  # bold is the table's own
        mark = match[0].split("-->")[0]
        return f"{mark}-->{cell}<!-- / -->"

    return NUMBER.sub(write, page)


def list_pages(root: Path = ROOT) -> list[Path]:
    """Return the pages that hold such numbers."""
    pages = sorted((root / "docs").rglob("*.md"))
    return [path for path in pages if NUMBER.search(path.read_text())]


def fill_pages(root: Path = ROOT) -> list[Path]:
    """Write README's numbers into the pages; return those that changed."""
    tables = read_tables((root / "README.md").read_text())
    changed = []
    for path in list_pages(root):
        text = fill(path.read_text(), tables)
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
    tables = read_tables((ROOT / "README.md").read_text())
    stale = [path for path in list_pages() if fill(path.read_text(), tables) != path.read_text()]
    if stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"error: {names}: not current, run python -m workflow.numbers")


if __name__ == "__main__":
    main()
