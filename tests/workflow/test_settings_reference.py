"""The JSON schema and the page of settings are what the models say, and editors find the schema."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from running import ROOT

from workflow import reference
from workflow.config import SCHEMA_FILE

CONFIGS = [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))]


def test_written_files_are_current():
    assert reference.list_stale() == []  # else: make settings


def test_stale_files_are_named(monkeypatch):
    monkeypatch.setattr(reference, "make_page", lambda: "another page")
    assert reference.list_stale() == [reference.PAGE_FILE]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_first_line_names_the_schema_and_the_schema_accepts_the_config(path: Path):
    prefix, _, named = path.read_text().splitlines()[0].partition("=")
    assert prefix == "# yaml-language-server: $schema"
    schema = (path.parent / named).resolve()
    assert schema == ROOT / SCHEMA_FILE
    Draft202012Validator(json.loads(schema.read_text())).validate(yaml.safe_load(path.read_text()))


def test_schema_refuses_what_the_config_check_refuses():
    validator = Draft202012Validator(json.loads((ROOT / SCHEMA_FILE).read_text()))
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["methods"]["dbksvd"]["nonegative"] = True
    assert not validator.is_valid(config)


def test_page_has_every_setting_with_its_meaning():
    page = (ROOT / reference.PAGE_FILE).read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 300
    without = [row for row in rows if not row.rstrip()[:-1].rpartition("|")[2].strip()]
    assert not without
