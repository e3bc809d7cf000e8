"""The JSON schema of a config and the page of all settings, both written from the models.

``python -m workflow.reference`` writes them; ``--check`` only says whether they are current.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from tabulate import tabulate

from dbksvd.base.files import replace_file
from dbksvd.base.settings_schema import list_values
from workflow.config import SCHEMA_FILE, ExperimentConfig, make_schema

ROOT = Path(__file__).parents[1]
PAGE_FILE = "docs/settings.md"
BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "pattern": "matches `{}`",
}
TOP = "config"  # the title of the whole config
HEADERS = ["key", "type", "default", "meaning"]
INTRODUCTION = """# Settings

Every key that a config may have, written from the code by `make settings`. A key without a default
is needed. Editors complete keys where the first line of a config names the schema:

```yaml
# yaml-language-server: $schema=docs/config.schema.json
```

A second config lies over the first, `snakemake --configfile config.yaml mine.yaml`: mappings are
merged key by key, all else is replaced, `null` takes a key away, and a mapping of another kind
(`source`, `algorithm`, `architecture`, `kind`) replaces the one below it.

A relative path begins at the working directory, where `snakemake` is started, wherever the config
lies; `~` is the home folder. Files and folders are looked at when the config is read: that they are
there, their columns, and by their headers the shapes and numbers of rows.

A whole number may be written as `100.0` or `2.0e+5`, and any number as `2e5`. A key that a file
names twice, an octal number such as `010` and a date outside quotes are refused.
"""


class Setting(NamedTuple):
    """A key of a config in words; type and meaning are Markdown."""

    key: str
    kind: str
    default: str
    meaning: str


class Section(NamedTuple):
    """A model: the key that holds it, with what tells it apart, what it is, and its own keys."""

    title: str
    description: str
    settings: list[Setting]


class Page:
    """Tables of all models below a schema, each once.

    Parameters
    ----------
    schema : mapping
        JSON schema with its definitions.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema, self.definitions = schema, schema.get("$defs", {})
        self.seen: set[str] = set()

    def write(self) -> str:
        """Return the page as Markdown."""
        parts = [INTRODUCTION]
        for title, description, settings in self.list_sections():
            heading = "##" if title == TOP or "." not in title else "###"
            parts.append(f"{heading} {title}\n")
            if description:
                parts.append(f"{description}\n")
            if settings:
                rows = [(f"`{key}`", *rest) for key, *rest in settings]
                parts.append(tabulate(rows, HEADERS, tablefmt="github") + "\n")
        return "\n".join(parts)

    def list_sections(self) -> Iterator[Section]:
        """Yield the whole config, and then the models in its fields, however deep, each once."""
        self.seen.clear()
        yield from self._list_below(TOP, self.schema, [])

    def _list_below(
        self, title: str, node: Mapping[str, Any], kinds: list[str]
    ) -> Iterator[Section]:
        """Yield a model, and after it the models in its fields."""
        rows, below = [], []
        for key, field in node.get("properties", {}).items():
            if "const" in field and key in kinds:
                continue
            models = list(self._find_models(field))
            below += [(key, *model) for model in models]
            is_needed = key in node.get("required", ())
            rows.append(
                Setting(
                    key,
                    self._tell_type(field),
                    "" if is_needed else self._tell_default(field),
                    _escape(field.get("description", "")),
                )
            )
        yield Section(title, " ".join(node.get("description", "").split("\n\n")[0].split()), rows)
        for key, name, model, tags in below:
            if name in self.seen:
                continue
            self.seen.add(name)
            prefix = key if title == TOP else f"{title.split(' ')[0]}.{key}"
            told = ", ".join(f"{tag}: {value}" for tag, value in tags.items())
            yield from self._list_below(f"{prefix} ({told})" if told else prefix, model, list(tags))

    def _find_models(
        self, field: Mapping[str, Any], tags: Mapping[str, str] | None = None
    ) -> Iterator[tuple[str, Mapping[str, Any], dict[str, str]]]:
        """Yield (name, model, what tells it apart) of the models that a field may hold."""
        tags = dict(tags or {})
        if "$ref" in field:
            name = field["$ref"].rsplit("/", 1)[-1]
            model = self.definitions[name]
            if "properties" in model:
                own = {
                    key: rule["const"]
                    for key, rule in model["properties"].items()
                    if "const" in rule
                }
                yield name, model, {**tags, **own}
            else:
                yield from self._find_models(model, tags)
        for option in (*field.get("anyOf", ()), *field.get("oneOf", ()), *field.get("allOf", ())):
            yield from self._find_models(option, tags)
        items = [field["items"]] if isinstance(field.get("items"), Mapping) else []
        for inner in (*items, *list_values(field)):
            yield from self._find_models(inner, tags)

    def _tell_type(self, field: Mapping[str, Any]) -> str:
        """Return type and bounds of a field in words."""
        if "$ref" in field:
            target = self.definitions[field["$ref"].rsplit("/", 1)[-1]]
            return "section" if "properties" in target else self._tell_type(target)
        if "const" in field:
            return f"`{field['const']}`"
        if "enum" in field:
            return ", ".join(f"`{word}`" for word in field["enum"])
        if options := (field.get("anyOf") or field.get("oneOf")):
            words = dict.fromkeys(self._tell_type(option) for option in options)
            return " or ".join(word for word in words if word != "null") or "null"
        if field.get("type") == "array":
            return f"list of {self._tell_type(field.get('items', {}))}"
        if field.get("type") == "object":
            values = list_values(field)
            return f"names to {self._tell_type(values[0])}" if values else "section"
        bounds = [_escape(text.format(field[key])) for key, text in BOUNDS.items() if key in field]
        return " ".join([field.get("type", "any"), *bounds[:1]]) + "".join(
            f", {bound}" for bound in bounds[1:]
        )

    def _tell_default(self, field: Mapping[str, Any]) -> str:
        default = field.get("default")
        if isinstance(default, Mapping) and any(True for _ in self._find_models(field)):
            return "its defaults"
        if default is None:
            return "none"
        return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _escape(text: str) -> str:
    """Return a text as a cell: a < before a word, as in results/<experiment>, is no tag."""
    return re.sub(r"<(?=[a-z]+>)", "&lt;", " ".join(text.split()).replace("|", "\\|"))


def open_page() -> Page:
    """Return the page of all settings, not written yet."""
    return Page(TypeAdapter(ExperimentConfig).json_schema())


def make_page() -> str:
    """Return the page of all settings as Markdown."""
    return open_page().write()


def list_stale() -> list[str]:
    """Return the written files that the models no longer say."""
    wanted = {SCHEMA_FILE: make_schema(), PAGE_FILE: make_page()}
    return [
        name
        for name, text in wanted.items()
        if not (ROOT / name).is_file() or (ROOT / name).read_text() != text
    ]


def main() -> None:
    """Write both files, or say which are not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    if parser.parse_args().check:
        if stale := list_stale():
            sys.exit(f"error: {', '.join(stale)}: not current, run make settings")
        return
    for name, text in ((SCHEMA_FILE, make_schema()), (PAGE_FILE, make_page())):
        with replace_file(ROOT / name) as temporary:
            temporary.write_text(text)


if __name__ == "__main__":
    main()
