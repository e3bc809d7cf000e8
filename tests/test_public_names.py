"""What is public is listed, can be imported, and says what each parameter is."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from doc_blocks import DOCS

import dbksvd

NAMES = sorted(set(dbksvd.__all__) - {"__version__"})
# Sections of numpydoc, each a line that dashes underline.
SECTION = re.compile(r"^(?P<name>[A-Z][a-z]+(?: [A-Z][a-z]+)?)\n-{3,}$", re.MULTILINE)


def split_sections(text: str) -> dict[str, str]:
    """Return {section: its lines} of a docstring, the summary under an empty name."""
    found = list(SECTION.finditer(text))
    starts = [*(match.start() for match in found), len(text)]
    sections = {m["name"]: text[m.end() : end] for m, end in zip(found, starts[1:], strict=True)}
    return {"": text[: starts[0]], **sections}


def list_described(section: str) -> set[str]:
    """Return the names that a section of parameters describes: `a, b : type`, at the margin."""
    heads = re.findall(r"^(\S[^:\n]*?)(?: : .*)?$", section, re.MULTILINE)
    return {name.lstrip("*") for head in heads for name in re.split(r",\s*", head)}


def list_parameters(thing: Any) -> set[str]:
    return {name for name in inspect.signature(thing).parameters if name != "self"}


def list_methods() -> list[Any]:
    """Return the public methods of the public classes that are written in this package."""
    classes = [getattr(dbksvd, name) for name in NAMES if inspect.isclass(getattr(dbksvd, name))]
    return [
        pytest.param(member, id=member.__qualname__)
        for one in classes
        for name, member in vars(one).items()
        if inspect.isfunction(member) and not name.startswith("_")
    ]


def test_what_is_public_is_importable_and_told():
    page = (DOCS / "api.md").read_text()
    assert set(dir(dbksvd)) == set(dbksvd.__all__)
    for name in NAMES:
        assert getattr(dbksvd, name).__name__ == name
        assert re.search(rf"^::: dbksvd\.\S+\.{name}$", page, re.MULTILINE), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dbksvd.nothing  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_are_numpydoc_and_name_every_parameter(name: str):
    thing = getattr(dbksvd, name)
    sections = split_sections(inspect.getdoc(thing) or "")
    assert re.match(r"[A-Z].*[.:]$", sections[""].strip().split("\n\n")[0].replace("\n", " "))
    assert sections.keys() <= {"", "Parameters", "Attributes", "Returns", "Raises", "Notes"}
    described = list_described(sections.get("Parameters", ""))
    assert list_parameters(thing) <= described, name
    assert inspect.isclass(thing) or "Returns" in sections


@pytest.mark.parametrize("method", list_methods())
def test_methods_say_what_they_do(method: Any):
    sections = split_sections(inspect.getdoc(method) or "")
    assert re.match(r"[A-Z].*\.", sections[""].replace("\n", " ")), method.__qualname__
    if "Parameters" in sections:
        assert list_parameters(method) <= list_described(sections["Parameters"])


def test_a_parameter_without_a_word_is_seen():
    text = "Do.\n\nParameters\n----------\na, b : int\n    Two.\n*rest\n    More.\n\nReturns\n-------\nint\n    One."
    sections = split_sections(text)
    assert list_described(sections["Parameters"]) == {"a", "b", "rest"}
    assert sections["Returns"].split() == ["int", "One."]
