"""What each kind of text source says of itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from dbksvd.base.settings import parse
from dbksvd.text.settings import AnySource, TextSettings
from dbksvd.text.sources.registry import SOURCES, find_text_source
from dbksvd.text.sources.sae_probes import list_probe_datasets, read_csv_texts

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef" * 2 + "01234567"
EXAMPLES = {
    "sae_probes": {"datasets": ["161_agnews_0"]},
    "hub": {"name": "some/text", "split": "train"},
    "local_dataset": {"path": "texts"},
    "file": {"path": "texts/a.txt"},
}


def make(kind: str, **changes):
    return parse(AnySource, {"kind": kind, **EXAMPLES[kind], **changes}, "text.sources[0]")


def test_the_table_and_the_entries_agree():
    assert SOURCES.keys() == EXAMPLES.keys()
    for kind in SOURCES:
        entry = find_text_source(kind)
        settings = make(kind)
        assert type(settings) is entry.settings
        assert settings.kind == kind
        assert parse(AnySource, settings.dump()) == settings
    with pytest.raises(ValueError, match=r"kind: expected one of file, hub, .*, got 'web'"):
        find_text_source("web")


def test_what_is_read_from_outside(tmp_path: Path):
    for name in ("b.csv", "a/c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text\n")
    for kind in SOURCES:
        entry, settings = find_text_source(kind), make(kind)
        assert (entry.hub_reads(settings) is None) == (kind != "hub")
        assert bool(entry.local_files(settings)) == (kind in ("file", "local_dataset"))
        assert entry.is_fixed(settings) == (kind == "sae_probes")
    hub = find_text_source("hub")
    pinned = make("hub", revision=COMMIT, streaming=True)
    assert hub.is_fixed(pinned)
    assert hub.hub_reads(pinned) == {
        "name": "some/text", "config": None, "revision": COMMIT, "streaming": True,
    }  # fmt: skip
    folder = make("local_dataset", path=str(tmp_path))
    assert find_text_source("local_dataset").local_files(folder) == [
        tmp_path / "a" / "c.csv",
        tmp_path / "b.csv",
    ]


@pytest.mark.parametrize("damage", ["cut", "garbage", "other columns"])
def test_a_damaged_data_set_is_named_in_one_line(tmp_path: Path, damage: str):
    (path,) = list_probe_datasets(["96_spam_is"], "test")
    broken = tmp_path / path.name
    if damage == "cut":
        content = path.read_bytes()
        broken.write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        broken.write_bytes(b"no frame of zstd")
    else:
        broken = tmp_path / "other.csv"
        broken.write_text("text\na\n")
    with pytest.raises(ValueError, match=r"expected a CSV with 'prompt', got: ") as caught:
        read_csv_texts(broken)
    assert str(caught.value).startswith(f"{broken}: ")
    assert "\n" not in str(caught.value).strip()


def test_a_missing_data_set_is_an_error_of_the_system(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_csv_texts(tmp_path / "none.csv.zst")


TOY = """
from typing import Literal
from dbksvd.base.settings import Count
from dbksvd.text.sources.entry import Source, SourceSettings

class ToySettings(SourceSettings):
    kind: Literal["toy"]
    lines: Count

def read(settings, where):
    yield "toy", (f"text {number}" for number in range(settings.lines))

SOURCE = Source(ToySettings, read, is_fixed=lambda settings: True)
"""


def test_a_new_source_is_one_module_and_one_line(tmp_path: Path):
    (tmp_path / "toy.py").write_text(TOY)
    code = f"""
from dbksvd.text.sources.registry import SOURCES
SOURCES["toy"] = "toy:SOURCE"
from dbksvd.text.documents import prepare_text
settings = {{"sources": [{{"kind": "toy", "lines": 60}}]}}
print(prepare_text(settings, {str(tmp_path / "text")!r})["sources"]["toy"]["kept"])
settings["sources"][0]["line"] = 3
try:
    prepare_text(settings, "unused")
except ValueError as error:
    print(error)
"""
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "60",
        "text.sources[0].line: unknown key, did you mean 'lines'?",
    ]


def test_settings_need_no_heavy_package():
    code = """
import sys
import dbksvd.text.settings, dbksvd.images.settings, dbksvd.models.settings
import dbksvd.synthetic.settings, dbksvd.activations.settings, dbksvd.activations.shard_settings
import dbksvd.base.site
heavy = {"torch", "pandas", "datasets", "numpy", "h5py", "sae_lens", "transformers", "PIL"}
print(*sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_the_schema_tells_the_kinds_apart():
    schema = TypeAdapter(TextSettings).json_schema()
    kinds = schema["properties"]["sources"]["items"]["discriminator"]["mapping"]
    assert kinds.keys() == SOURCES.keys()
    assert schema["properties"]["held_out_datasets"]["anyOf"][0]["uniqueItems"]
    hub = schema["$defs"][kinds["hub"].rsplit("/", 1)[-1]]
    assert "streaming" in hub["properties"]
    assert all("description" in each for each in hub["properties"].values())
