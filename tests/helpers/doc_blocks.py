"""Blocks of code on the pages that people read."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Written from the code, so that its one block is checked there (test_settings_reference.py).
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(path for path in DOCS.rglob("*.md")),
]
FENCE = re.compile(r"^```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, number on the page from 0, language and text."""

    page: Path
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}#{self.number}"


def list_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    found = FENCE.finditer(page.read_text())
    return [Block(page, n, match["language"], match["text"]) for n, match in enumerate(found)]


def list_commands(text: str) -> list[list[str]]:
    """Return the commands of a block of shell as words, without comments and what a shell does."""
    joined = text.replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [part for line in lines for part in split_and(line)]


def split_and(words: list[str]) -> list[list[str]]:
    """Split a line at &&."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]
