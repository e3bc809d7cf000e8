"""What is stored of an eval names no folder of the machine that ran it."""

import json
import tempfile
from pathlib import Path

import pytest

from dbksvd.evaluation.saebench.machine_paths import drop_machine_paths


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        ("{root}/cache/model", "cache/model"),
        ("{root}", "."),
        ("read from {root}/data/a.csv, then {root}/b", "read from data/a.csv, then b"),
        ("{root}-other/data", "{root}-other/data"),
        ("{home}/.cache/x", ".cache/x"),
        ("{temporary}/saebench-1/artifacts", "saebench-1/artifacts"),
        ("a text about {home}/x", "a text about {home}/x"),
        ("/usr/share", "/usr/share"),
        ("EleutherAI/pythia", "EleutherAI/pythia"),
    ],
)
def test_paths_become_relative_and_texts_stay(tmp_path, stored, kept):
    names = {"root": tmp_path / "root", "home": Path.home(), "temporary": tempfile.gettempdir()}
    if names["root"].is_relative_to(names["temporary"]) and stored.startswith("{root}-"):
        kept = kept.format(**names).removeprefix(f"{names['temporary']}/")
    stored, kept = stored.format(**names), kept.format(**names)
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "result.json"
    path.write_text(json.dumps({"a": [1.5, None, {stored: stored}], "b": "c"}))
    drop_machine_paths(tmp_path / "out", [tmp_path / "root"])
    assert json.loads(path.read_text()) == {"a": [1.5, None, {kept: kept}], "b": "c"}


def test_a_file_without_such_paths_keeps_its_bytes(tmp_path):
    path = tmp_path / "result.json"
    path.write_text('{"a":NaN,\n"b": "c/d"}')
    drop_machine_paths(tmp_path, [tmp_path])
    assert path.read_text() == '{"a":NaN,\n"b": "c/d"}'
