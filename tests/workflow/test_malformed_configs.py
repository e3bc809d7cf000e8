"""Whatever stands in a config: it is accepted, or one line names a key and the reason."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from examples import try_examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from running import ROOT, copy_project, run_fork

from dbksvd.base.settings import SettingsError
from dbksvd.base.site import Site
from workflow.config import make_schema
from workflow.experiment import Experiment, as_param

CONFIGS = [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))]
HOSTILE = [
    *(None, True, False, 0, 1, -1, 2, 10**30, -(10**30), 0.5, 1.5, -0.0, 1e308),
    *(float("nan"), float("inf"), -float("inf"), "", " ", "0", "null", "x; touch pwned"),
    *("$(touch pwned)", "`touch pwned`", "'\"", "a\nb", "../..", "é", "{wildcards}", "\x00"),
    *([], {}, [None], [[]], [1, 1], {"a": 1}, {1: 2}, {None: None}, [{"kind": "file"}]),
]


def list_names(schema: Any) -> Iterator[str]:
    """Yield all keys and words that the schema knows: right ones in wrong places."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        yield from (word for word in schema.get("enum", ()) if isinstance(word, str))
        yield from ([schema["const"]] if isinstance(schema.get("const"), str) else ())
        for value in schema.values():
            yield from list_names(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from list_names(value)


NAMES = sorted(set(list_names(json.loads(make_schema()))))


def list_places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a config."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield (*place, key)
        yield from list_places(item, (*place, key))


@st.composite
def malformed_configs(draw: st.DrawFn) -> Any:
    """A shipped config with one to three things in it dropped, added or replaced."""
    config = copy.deepcopy(draw(st.sampled_from(SHIPPED)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(list_places(config))))
        holder = config
        for key in place[:-1]:
            holder = holder[key]
        value = draw(
            st.one_of(
                st.sampled_from(HOSTILE),
                st.sampled_from(NAMES),
                st.integers(),
                st.floats(),
                st.text(max_size=20),
                st.sampled_from(SHIPPED).map(copy.deepcopy),
            )
        )
        match draw(st.sampled_from(["drop", "replace", "add", "empty"])):
            case "drop":
                del holder[place[-1]]
            case "replace":
                holder[place[-1]] = value
            case "empty":
                holder[place[-1]] = type(holder[place[-1]])()
            case "add" if isinstance(holder, dict):
                key = draw(st.one_of(st.sampled_from(NAMES), st.sampled_from(["", "a b", 1, "*"])))
                holder[key] = value
            case "add":
                holder.append(value)
        if not config:
            break
    return config


SHIPPED = [yaml.safe_load(path.read_text()) for path in CONFIGS]
ACCEPTED: list[bool] = []


def use(experiment: Experiment) -> None:
    """Ask for all that the rules ask for."""
    for site in experiment.sites:
        layer = Site.parse(site).layer
        params = [as_param(experiment.extraction(site)), experiment.scoring(site)]
        params += [experiment.preparation(name, site, layer) for name in experiment.evals(site)]
        assert experiment.count_slices(site) >= 0
        assert all(json.loads(param) for param in params)
    assert experiment.fits
    assert experiment.figures
    assert [*map(experiment.ground_truth_file, experiment.fits)]
    for param in (experiment.rows(), experiment.synthetic_model(), experiment.synthetic_samples()):
        json.loads(param)
    experiment.access()
    for name in ("shards", "images"):
        json.loads(experiment.section(name))
    json.loads(experiment.text())
    json.loads(experiment.drawing_settings())
    assert set(experiment.labels) == set(experiment.config.methods)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_accepted(path: Path):
    use(Experiment(yaml.safe_load(path.read_text())))


@given(malformed_configs())
@try_examples(200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def check_config(config: Any) -> None:
    try:
        use(Experiment(config))
    except SettingsError as error:
        for message in (str(error), *error.problems):
            assert re.match(r"\S.*?: \S", message), message
            assert message.isprintable(), message
            assert len(message) < 1000, message
        ACCEPTED.append(False)
    else:
        ACCEPTED.append(True)


@pytest.mark.hypothesis
def test_malformed_configs_are_named_or_harmless():
    ACCEPTED.clear()
    check_config()
    assert len(ACCEPTED) >= 200
    assert ACCEPTED.count(False) > 120  # most of them are refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shards: {rows_per_shard: .nan}\n", r"^error: config: shards\.rows_per_shard: .*got nan$"),
        ("'x; touch pwned': 1\n", r"^error: config: 'x; touch pwned': unknown key"),
        ("- a\n- list\n", r"with keys at top level"),
        ("fits: [\n", r"not valid JSON or YAML"),
    ],
    ids=["not a number", "shell", "a list", "not YAML"],
)
def test_malformed_files_end_before_anything_runs(tmp_path: Path, text: str, message: str):
    folder = copy_project(tmp_path / "project")
    (folder / "bad.yaml").write_text(text)
    status, output = run_fork(folder, "--cores", "1", config="bad.yaml")
    assert status == 1, output
    assert "Traceback" not in output
    assert re.search(message, output, re.MULTILINE), output
    assert not (folder / "results").exists()
    assert not list(tmp_path.rglob("pwned"))
