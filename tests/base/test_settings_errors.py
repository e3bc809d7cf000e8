"""Where a message says that a setting is wrong: names of union members are no keys."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Discriminator

from dbksvd.base.settings import Count, Names, Settings, SettingsError, parse


class Circle(Settings):
    kind: Literal["circle"] = "circle"
    radius: Count


class Inner(Settings):
    kind: Literal["square", "file"]
    side: Count


class File(Settings):
    kind: Literal["file"]
    file: Annotated[Circle | Inner, Discriminator("kind")]


Shape = Annotated[Circle | File, Discriminator("kind")]


class Drawing(Settings):
    shapes: dict[str, Shape]
    only: Shape | None = None
    names: Names | None = None
    kind: str = "circle"
    circle: Count = 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "shapes: missing key"),
        ({"shapes": {"circle": {"kind": "circle"}}}, "shapes.circle.radius: missing key"),
        ({"shapes": {"a": {"kind": "file"}}}, "shapes.a.file: missing key"),
        ({"shapes": {"a": {"kind": "file", "file": {"kind": "file"}}}}, "shapes.a.file.side: missing key"),
        ({"shapes": {"a": {"kind": "file", "file": 3}}}, "shapes.a.file: expected object, got 3"),
        ({"shapes": {"file": {"kind": "circle", "radius": 0}}}, "shapes.file.radius: expected at least 1, got 0"),
        ({"shapes": {}, "only": {"kind": "file", "file": {"kind": "x"}}}, "only.file.kind: expected one of 'circle', 'square', 'file', got 'x'"),
        ({"shapes": {}, "only": {"kind": "circle", "radius": 1, "file": 2}}, "only.file: unknown key, expected one of kind, radius"),
        ({"shapes": {}, "circle": 0}, "circle: expected at least 1, got 0"),
        ({"shapes": {}, "names": ["a", "b", "a"]}, "names: expected no repeats, got ['a', 'b', 'a']"),
        ({"shapes": {}, "names": []}, "names: expected at least 1 item, got []"),
    ],
)  # fmt: skip
def test_the_key_that_is_wrong_is_named(values, message):
    with pytest.raises(SettingsError) as caught:
        parse(Drawing, values)
    assert str(caught.value) == message
    with pytest.raises(SettingsError) as caught:
        parse(Drawing, values, "drawing")
    assert str(caught.value) == f"drawing.{message}"
