"""Config files, read so that what YAML would pass over in silence is refused with its line.

PyYAML reads YAML 1.1: of a key that is written twice the last value wins, 010 is 8, 1:30 is 90 and
2024-01-01 is a date. JSON is read as the YAML that it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dbksvd.base.settings import SettingsError
from dbksvd.base.settings_errors import join

MERGE = "tag:yaml.org,2002:merge"
DATE = "tag:yaml.org,2002:timestamp"
INTEGER = "tag:yaml.org,2002:int"
NUMBERS = (INTEGER, "tag:yaml.org,2002:float")
OCTAL = re.compile(r"[-+]?0[0-7_]+")
MOST_NODES = 100_000  # of a file, those behind an alias counted each time


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Return what a config file holds.

    Raises
    ------
    SettingsError
        If it cannot be read, holds no mapping, or holds what YAML reads as something else than
        stands there; all such places are named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        loader = yaml.SafeLoader(_indent_with_blanks(text))
        node = loader.get_single_node()
        problems = [] if node is None else list(_find_problems(node, "", Visits()))
        if problems:
            raise SettingsError(*(f"{path}: {problem}" for problem in problems))
        content = None if node is None else loader.construct_document(node)
    except SettingsError:
        raise
    # ValueError: not UTF-8, or more digits than Python reads
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{path}: expected a YAML file, got: {reason}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: expected keys and values, got {type(content).__name__}")
    return content


def _indent_with_blanks(text: str) -> str:
    """Return JSON whose lines may begin with tabs, which YAML does not allow."""
    if not text.lstrip().startswith("{"):
        return text
    return re.sub(r"^[\t ]+", lambda found: found[0].expandtabs(), text, flags=re.MULTILINE)


class Visits:
    """How often nodes were visited, and which are open: an alias may hold itself."""

    def __init__(self) -> None:
        self.count = 0
        self.open: set[int] = set()

    def enter(self, node: yaml.Node) -> str | None:
        """Return what is wrong with going into a node, if anything."""
        self.count += 1
        if id(node) in self.open:
            return "expected an alias of what stands elsewhere, got one that holds itself"
        if self.count == MOST_NODES:
            return f"expected at most {MOST_NODES} values, got more"
        self.open.add(id(node))
        return None


def _find_problems(node: yaml.Node, where: str, visits: Visits) -> Iterator[str]:
    if visits.count >= MOST_NODES:
        return
    wrong = visits.enter(node)
    if wrong is not None:
        yield f"line {node.start_mark.line + 1}: {where or 'config'}: {wrong}"
        return
    if isinstance(node, yaml.MappingNode):
        yield from _find_repeats(node, where)
        for key, value in node.value:
            below = where if key.tag == MERGE else join(where, str(key.value))
            yield from _find_problems(value, below, visits)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield from _find_problems(value, f"{where}[{position}]", visits)
    elif isinstance(node, yaml.ScalarNode):
        yield from _find_misread(node, where)
    visits.open.discard(id(node))


def _find_repeats(node: yaml.MappingNode, where: str) -> Iterator[str]:
    """Yield a problem for each key that a mapping names again; merged keys do not count."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if key.tag == MERGE or not isinstance(key, yaml.ScalarNode):
            continue
        line, name = key.start_mark.line + 1, (key.tag, key.value)
        if name in lines:
            yield (
                f"line {line}: {join(where, key.value)}: expected a key once, got it in lines "
                f"{lines[name]} and {line}"
            )
        lines.setdefault(name, line)


def _find_misread(node: yaml.ScalarNode, where: str) -> Iterator[str]:
    """Yield a problem for a value that YAML 1.1 reads otherwise than people do."""
    start = f"line {node.start_mark.line + 1}: {where or 'config'}"
    if node.tag == DATE:
        yield f"{start}: expected no date, got {node.value} (in quotes it is text)"
    elif node.tag == INTEGER and OCTAL.fullmatch(node.value):
        number = int(node.value.replace("_", ""), 8)
        yield (
            f"{start}: expected a decimal number, got {node.value}, which YAML reads as {number} "
            "(in quotes it is text)"
        )
    elif node.tag in NUMBERS and ":" in node.value:
        yield (
            f"{start}: expected a decimal number, got {node.value}, which YAML reads to the base "
            "60 (in quotes it is text)"
        )
