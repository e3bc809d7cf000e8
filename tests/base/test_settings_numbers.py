"""Numbers as people and YAML write them; and everything that is wrong at once."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from dbksvd.base.settings import Count, Seed, Settings, SettingsError, Text, parse


class Part(Settings):
    kind: Literal["part"]
    size: Count | list[Count] = 1


class Plan(Settings):
    count: Count = 1
    seed: Seed = 0
    share: float = 0.5
    name: Text = "x"
    flag: bool = False
    counts: list[Count] | None = None
    parts: dict[str, Annotated[Part, Field()]] = Field(default={})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"count": 100.0}, {"count": 100}),
        ({"count": 2.0e5}, {"count": 200_000}),
        ({"count": "2e5"}, {"count": 200_000}),
        ({"count": "1.5e3"}, {"count": 1500}),
        ({"count": "1E+2", "share": "1e-3"}, {"count": 100, "share": 0.001}),
        ({"counts": [1, 2.0, "3e0"]}, {"counts": [1, 2, 3]}),
        ({"parts": {"a": {"kind": "part", "size": 3.0}}}, {"parts": {"a": {"kind": "part", "size": 3}}}),
        ({"parts": {"a": {"kind": "part", "size": [3.0]}}}, {"parts": {"a": {"kind": "part", "size": [3]}}}),
        ({"name": "2e5"}, {"name": "2e5"}),
        ({"seed": -0.0}, {"seed": 0}),
    ],
)  # fmt: skip
def test_whole_numbers_are_counts_however_they_are_written(values: Any, expected: Any):
    found = parse(Plan, values)
    assert found == parse(Plan, expected)
    assert found.dump() == parse(Plan, expected).dump()
    assert type(found.count) is int


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 100.5}, "count: expected integer, got 100.5"),
        ({"count": "1e-1"}, "count: expected integer, got '1e-1'"),
        ({"count": "100"}, "count: expected integer, got '100'"),
        ({"count": "1e400"}, "count: expected integer, got '1e400'"),
        ({"count": 1e300}, "count: expected integer, got 1e+300"),
        ({"count": 0.0}, "count: expected at least 1, got 0"),
        ({"count": 2**63}, f"count: expected at most {2**63 - 1}, got {2**63}"),
        ({"count": 10**5000}, f"count: expected at most {2**63 - 1}, got an integer of 16610 bits"),
        ({"seed": 2**32}, f"seed: expected at most {2**32 - 1}, got {2**32}"),
        ({"name": False}, "name: expected string, got False (YAML reads yes, no, on and off as true and false; in quotes they are text)"),
        ({"name": None}, "name: expected string, got None"),
        ({"name": 12}, "name: expected string, got 12 (in quotes it is text)"),
        ({"count": float("nan")}, "count: expected a finite number, got nan"),
        ({"count": float("inf")}, "count: expected a finite number, got inf"),
        ({"flag": 1}, "flag: expected boolean, got 1"),
        ({"share": float("-inf")}, "share: expected a finite number, got -inf"),
    ],
)  # fmt: skip
def test_other_values_are_refused_by_key(values: Any, message: str):
    with pytest.raises(SettingsError) as caught:
        parse(Plan, values)
    assert caught.value.problems == (message,)
    assert str(caught.value) == message


def test_everything_that_is_wrong_is_told_at_once():
    values = {
        "count": "x", "share": float("nan"), "nmae": "y", "counts": [0, 1, -1],
        "parts": {"a": {}, "b": {"kind": "prt", "size": 0}},
    }  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        parse(Plan, values, "plan")
    assert set(caught.value.problems) == {
        "plan.count: expected integer, got 'x'",
        "plan.share: expected a finite number, got nan",
        "plan.nmae: unknown key, did you mean 'name'?",
        "plan.counts[0]: expected at least 1, got 0",
        "plan.counts[2]: expected at least 1, got -1",
        "plan.parts.a.kind: missing key",
        "plan.parts.b.kind: expected one of 'part', got 'prt'",
        "plan.parts.b.size: expected at least 1 or array, got 0",
    }
    told = caught.value.tell("error: config").splitlines()
    assert told[:-1] == [f"error: config: {problem}" for problem in caught.value.problems]
    assert told[-1] == "error: config: 8 problems"


def test_zero_has_no_sign():
    found = parse(Plan, {"share": -0.0, "parts": {}}).dump()
    assert str(found["share"]) == "0.0"


def test_a_key_that_was_misspelt_is_not_missing_too():
    with pytest.raises(SettingsError) as caught:
        parse(Part, {"knid": "part"})
    assert caught.value.problems == ("knid: unknown key, did you mean 'kind'?",)
