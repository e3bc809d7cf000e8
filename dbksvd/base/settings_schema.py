"""The JSON schema of settings, followed to the place of an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

Node = Mapping[str, Any]


class SchemaWalk:
    """Follows the locations that pydantic gives to errors.

    Parameters
    ----------
    kind : Settings class, or any type that pydantic knows
        What was expected.
    """

    def __init__(self, kind: Any) -> None:
        self._schema: Node = TypeAdapter(kind).json_schema()
        self._definitions: Node = self._schema.get("$defs", {})

    def list_keys(self, location: Sequence[int | str]) -> Iterator[str]:
        """Yield the keys that are known where pydantic met an unknown one."""
        for node in self._follow(location)[0]:
            yield from node.get("properties", {})

    def find_tags(self, location: Sequence[int | str]) -> set[int]:
        """Return which parts of a location are no keys but values that tell a union's members."""
        return self._follow(location)[1]

    def _follow(self, location: Sequence[int | str]) -> tuple[list[Node], set[int]]:
        """Return the schemas at the end of a location, and the positions of tags in it."""
        nodes: list[Node] = [self._schema]
        tags: set[int] = set()
        for position, part in enumerate(location):
            unions = [node for node in nodes for node in self._open(node, whole=True)]
            mappings = [node["discriminator"]["mapping"] for node in unions if _is_tagged(node)]
            chosen = [mapping[part] for mapping in mappings if part in mapping]
            if chosen:
                tags.add(position)
                nodes = [self._resolve(each) if isinstance(each, str) else each for each in chosen]
                continue
            opened = [each for node in nodes for each in self._open(node)]
            nodes = [below for node in opened for below in _descend(node, part)] or nodes
        return [each for node in nodes for each in self._open(node)], tags

    def _resolve(self, reference: str) -> Node:
        node: Node = self._definitions[reference.rsplit("/", 1)[-1]]
        return node

    def _open(self, node: Node, *, whole: bool = False) -> list[Node]:
        """Return the alternatives of a node, references resolved; `whole` keeps tagged unions."""
        if "$ref" in node:
            return self._open(self._resolve(node["$ref"]), whole=whole)
        if whole and _is_tagged(node):
            return [node]
        options = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
        return [each for option in options for each in self._open(option, whole=whole)] or [node]


def list_values(node: Node) -> list[Node]:
    """Return the schemas of the values of a mapping whose keys are names."""
    values = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
    return [value for value in values if isinstance(value, Mapping)]


def _is_tagged(node: Node) -> bool:
    return "mapping" in node.get("discriminator", {})


def _descend(node: Node, part: int | str) -> Iterator[Node]:
    """Yield the schema of a key or an item of a node; none for the name of a union's member."""
    properties = node.get("properties", {})
    values = list_values(node)
    if isinstance(part, int):
        yield node.get("items", {})
    elif part in properties:
        yield properties[part]
    elif values:
        yield from values
    elif any(rule.get("const") == part for rule in properties.values()):
        yield node
