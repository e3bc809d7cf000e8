"""Config files: what YAML would pass over in silence is refused, with key and line."""

import json
from pathlib import Path

import pytest
import yaml
from running import ROOT

from dbksvd.base.settings import SettingsError
from workflow.config_files import read_config_file


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: 2\na: 3\n", ["line 3: a: expected a key once, got it in lines 1 and 3"]),
        ("a: 1\n'a': 3\n", ["line 2: a: expected a key once, got it in lines 1 and 2"]),
        ("x: {p: 1, p: 1}\n", ["line 1: x.p: expected a key once, got it in lines 1 and 1"]),
        ("l:\n  - k: [1]\n    k: [2]\nm:\n  z: 1\n  z: 1\n",
         ["line 3: l[0].k: expected a key once, got it in lines 2 and 3",
          "line 6: m.z: expected a key once, got it in lines 5 and 6"]),
        ('{"a": {"b": 1,\n"b": 2}}', ["line 2: a.b: expected a key once, got it in lines 1 and 2"]),
        ("seed: 010\n", ["line 1: seed: expected a decimal number, got 010, which YAML reads as 8 (in quotes it is text)"]),
        ("seed: 1:30\n", ["line 1: seed: expected a decimal number, got 1:30, which YAML reads to the base 60 (in quotes it is text)"]),
        ("experiment: 2024-01-01\n", ["line 1: experiment: expected no date, got 2024-01-01 (in quotes it is text)"]),
        ("a: &a [*a]\n", ["line 1: a[0]: expected an alias of what stands elsewhere, got one that holds itself"]),
    ],
)  # fmt: skip
def test_what_is_misread_is_refused(tmp_path: Path, text: str, problems: list[str]):
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_config_file(path)
    assert [*caught.value.problems] == [f"{path}: {problem}" for problem in problems]


def test_merges_anchors_and_keys_of_other_mappings_are_no_repeats(tmp_path: Path):
    text = "base: &b {x: 1, y: 2}\nother: &c {x: 5}\nl: [{k: 1}, {k: 2}]\n"
    text += "a:\n  <<: *b\n  x: 3\nb: {<<: [*b, *c], y: 7}\n"
    found = read_config_file(write(tmp_path, text))
    assert found["a"] == {"x": 3, "y": 2}
    assert found["b"] == {"x": 1, "y": 7}
    assert found["l"] == [{"k": 1}, {"k": 2}]


def test_json_with_tabs_and_a_byte_order_mark_is_read(tmp_path: Path):
    content = {"a": {"b": [1, 2.5, "x/y", None, True]}, "é": "\t"}
    for text in (json.dumps(content, indent="\t"), "\ufeff" + json.dumps(content)):
        assert read_config_file(write(tmp_path, text, "mine.json")) == content


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *(ROOT / "experiments").glob("*.yaml")])
def test_shipped_configs_are_read_as_yaml_does(path: Path):
    assert read_config_file(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize("text", ["a: " + "9" * 5000, "[" * 5000, "a: \x00", "? [a]: b"])
def test_files_that_python_cannot_read_are_one_line(tmp_path: Path, text: str):
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_config_file(path)
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(f"{path}: expected a YAML file, got: ")


def test_aliases_that_multiply_are_not_followed(tmp_path: Path):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(SettingsError, match="expected at most 100000 values, got more"):
        read_config_file(write(tmp_path, "\n".join(lines)))
