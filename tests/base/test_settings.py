"""Settings: one line for whatever is wrong, with key, expectation and what came."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from dbksvd.base.settings import Count, Fraction, Settings, SettingsError, parse


class Circle(Settings):
    kind: Literal["circle"] = "circle"
    radius: Count
    """Radius, in steps."""
    share: Fraction = 0.5


class Square(Settings):
    kind: Literal["square"] = "square"
    turn: Literal["left", "right"]
    side: Annotated[int, Field(ge=2)] | None = None


class Box(Settings):
    shapes: dict[str, Annotated[Circle | Square, Field(discriminator="kind")]]
    frame: Circle | None = None
    sizes: Count | Annotated[list[Count], Field(min_length=1)] | None = None
    name: Annotated[str, Field(pattern="^[a-z]+$")] = "box"

    @model_validator(mode="after")
    def _check_name(self) -> "Box":
        if self.name == "none" and self.frame is not None:
            raise ValueError("name: expected another for a box with a frame, got 'none'")
        return self


CIRCLE = {"kind": "circle", "radius": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "box.shapes: missing key"),
        ({"shapes": {"a": {"kind": "circle"}}, "frame": {}}, "box.shapes.a.radius, box.frame.radius: missing keys"),
        ({"shapes": {"a": {"radius": 1}}}, "box.shapes.a.kind: missing key"),
        ({"shapes": {"a": {"kind": "cube"}}}, "box.shapes.a.kind: expected one of 'circle', 'square', got 'cube'"),
        ({"shapes": {"a": {"kind": "square", "turn": "left", "sde": 2}}}, "box.shapes.a.sde: unknown key, did you mean 'side'?"),
        ({"shapes": {}, "zzz": 1}, "box.zzz: unknown key, expected one of frame, name, shapes, sizes"),
        ({"shapes": {"a": {"kind": "square", "turn": "up"}}}, "box.shapes.a.turn: expected one of 'left', 'right', got 'up'"),
        ({"shapes": {"a": CIRCLE | {"radius": True}}}, "box.shapes.a.radius: expected integer, got True"),
        ({"shapes": {"a": CIRCLE | {"radius": 1.5}}}, "box.shapes.a.radius: expected integer, got 1.5"),
        ({"shapes": {"a": CIRCLE | {"radius": 0}}}, "box.shapes.a.radius: expected at least 1, got 0"),
        ({"shapes": {"a": CIRCLE | {"share": 2}}}, "box.shapes.a.share: expected at most 1, got 2"),
        ({"shapes": {"a": CIRCLE | {"share": float("nan")}}}, "box.shapes.a.share: expected a finite number, got nan"),
        ({"shapes": {1: CIRCLE}}, "box.shapes.1: expected a text key, got 1"),
        ({"shapes": 3}, "box.shapes: expected object, got 3"),
        ({"shapes": {}, "sizes": []}, "box.sizes: expected integer or at least 1 item, got []"),
        ({"shapes": {}, "sizes": [0]}, "box.sizes[0]: expected at least 1, got 0"),
        ({"shapes": {}, "sizes": "x"}, "box.sizes: expected integer or array, got 'x'"),
        ({"shapes": {}, "name": "X"}, "box.name: expected text matching ^[a-z]+$, got 'X'"),
        ({"shapes": {}, "name": "none", "frame": CIRCLE}, "box.name: expected another for a box with a frame, got 'none'"),
        (3, "box: expected object, got 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_one_line(values: Any, message: str):
    with pytest.raises(SettingsError) as caught:
        parse(Box, values, "box")
    assert str(caught.value) == message


def test_parsed_settings_hold_all_defaults_and_never_change():
    box = parse(Box, {"shapes": {"a": CIRCLE}}, "box")
    assert box.dump() == {
        "shapes": {"a": {"kind": "circle", "radius": 1, "share": 0.5}},
        "frame": None,
        "sizes": None,
        "name": "box",
    }
    assert parse(Box, box, "box") is box
    assert parse(Box, box.dump(), "box") == box
    with pytest.raises(ValueError, match="frozen"):
        box.name = "other"


def test_long_values_are_cut():
    with pytest.raises(SettingsError) as caught:
        parse(Box, {"shapes": "x" * 1000})
    assert len(str(caught.value)) < 300
