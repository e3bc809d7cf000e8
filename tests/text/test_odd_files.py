"""Files and keys of the text sources: each is obeyed, or refused in one line that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from dbksvd.base.settings import parse
from dbksvd.text.documents import prepare_text, read_source
from dbksvd.text.settings import AnySource
from dbksvd.text.sources.registry import find_text_source


def read(**source) -> list:
    return [text for _, texts in read_source(source, "text.sources[0]") for text in texts]


def read_file(path: Path, content: bytes, **keys) -> list:
    path.write_bytes(content)
    return read(kind="file", path=str(path), **keys)


JSON_LINES = '{"text": "früh"}\n{"text": "b"}\n'


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("mark.txt", "\ufefffrüh\nb\n".encode(), ["früh", "b"]),
        ("mark.jsonl", ("\ufeff" + JSON_LINES).encode(), ["früh", "b"]),
        ("windows.txt", "früh\r\nb\r\n".encode(), ["früh", "b"]),
        ("windows.jsonl", JSON_LINES.replace("\n", "\r\n").encode(), ["früh", "b"]),
        ("blank.jsonl", (JSON_LINES + "\n  \n").encode(), ["früh", "b", None, None]),
        ("open.jsonl", JSON_LINES[:-1].encode(), ["früh", "b"]),
        ("null.jsonl", b'{"text": null}\n{"text": "b"}\n', [None, "b"]),
    ],
)
def test_files_as_other_programs_write_them(tmp_path, name, content, texts):
    got = read_file(tmp_path / name, content)
    assert [text.strip() if text else text for text in got] == texts
    assert not any("\ufeff" in text for text in got if text)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wide.txt", "früh\n".encode("utf-16"), r"wide\.txt: expected UTF-8 text, got UTF-16"),
        ("wide.jsonl", JSON_LINES.encode("utf-16"), r"wide\.jsonl: expected UTF-8.*UTF-16"),
        ("wide.txt", "a\nb\n".encode("utf-16-le"), r"wide\.txt: line 1: .* a NUL character"),
        ("latin.txt", "a\nfrüh\n".encode("latin-1"), r"latin\.txt: expected UTF-8 text, got other"),
        ("nul.txt", b"a\nb\0c\n", r"nul\.txt: line 2: expected text, got a NUL character"),
        ("empty.txt", b"", r"empty\.txt: expected text, got an empty file"),
        ("empty.jsonl", b"", r"empty\.jsonl: expected text, got an empty file"),
        ("cut.jsonl", b'{"text": "a"}\n{"text": "b', r"cut\.jsonl: line 2: expected a JSON obj"),
        ("list.jsonl", b'["a", "b"]\n', r"list\.jsonl: line 1: expected a JSON object"),
        ("string.jsonl", b'"text"\n', r"string\.jsonl: line 1: expected a JSON object"),
        ("deep.jsonl", b"[" * 100_000, r"deep\.jsonl: line 1: expected a JSON object"),
        ("digits.jsonl", b'{"text": ' + b"1" * 5000 + b"}", r"digits\.jsonl: line 1: expected"),
        ("body.jsonl", b'{"body": "a", "n": 1}\n', r"with 'text', got the fields 'body', 'n'"),
        ("number.jsonl", b'{"text": 5}\n', r"line 1: expected text in 'text', got int 5"),
        ("words.jsonl", b'{"text": ["a"]}\n', r"expected text in 'text', got list \['a'\]"),
        ("array.json", b'[{"text": "a"}]', r"path: expected a \.txt or \.jsonl file, got /.*json"),
        ("a.jsonl.gz", b"\x1f\x8b", r"path: expected a \.txt or \.jsonl file, got /.*gz"),
        ("a.jsonl.zst", b"\x28\xb5", r"path: expected a \.txt or \.jsonl file, got /.*zst"),
    ],
)
def test_files_that_are_no_text_are_named(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_file(tmp_path / name, content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


TABLE = pd.DataFrame({"text": ["a", "b"], "n": [1, 2], "label": ["x", "y"]})


def write_table(path: Path, frame: pd.DataFrame = TABLE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


def read_local(path: Path, **keys) -> list:
    return read(kind="local_dataset", path=str(path), **keys)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_split_of_files_is_read_alone(tmp_path, suffix):
    for split in ("train", "test"):
        for part in range(2):
            frame = pd.DataFrame({"text": [f"{split} {part}"]})
            write_table(tmp_path / f"{split}-{part:05d}-of-00002.{suffix}", frame)
    (tmp_path / "README.md").write_text("---\n")
    assert read_local(tmp_path, split="train") == ["train 0", "train 1"]
    assert read_local(tmp_path, split="test") == ["test 0", "test 1"]
    for split in ("validation", None):
        with pytest.raises(ValueError, match=r"\.split: expected one of train, test in /.*, got"):
            read_local(tmp_path, split=split)
    inside = tmp_path / "layout of the hub" / "data" / f"validation-00000-of-00001.{suffix}"
    write_table(inside)
    assert read_local(tmp_path / "layout of the hub") == ["a", "b"]
    assert read_local(tmp_path / "layout of the hub", split="validation") == ["a", "b"]


def test_files_without_a_split_in_their_names_are_train(tmp_path):
    file = write_table(tmp_path / "contest" / "latest.parquet")
    for path in (file, file.parent):
        assert read_local(path) == read_local(path, split="train") == ["a", "b"]
        with pytest.raises(ValueError, match=r"\.split: expected one of train in .*'test'"):
            read_local(path, split="test")


@pytest.mark.parametrize("other", ["Train-0.parquet", "more.parquet", "trainset.parquet"])
def test_files_without_a_split_beside_those_with_one_are_not_left_out_unsaid(tmp_path, other):
    write_table(tmp_path / "data" / "test-0.parquet")
    write_table(tmp_path / "data" / other)
    message = rf"\.split: expected one of test in .*, such as {other}, got None"
    check = find_text_source("local_dataset").check
    with pytest.raises(ValueError, match=message):
        check(parse(AnySource, {"kind": "local_dataset", "path": str(tmp_path / "data")}), "text")
    with pytest.raises(ValueError, match=message):
        read_local(tmp_path / "data")
    assert read_local(tmp_path / "data", split="test") == ["a", "b"]


def test_what_the_check_accepts_is_what_is_read(tmp_path):
    """Before anything runs, the same folders and splits are accepted as later are read."""
    write_table(tmp_path / "data" / "train-0.parquet")
    broken = tmp_path / "data" / "test-0.parquet"
    broken.write_bytes(b"no table")
    check = find_text_source("local_dataset").check
    for split, accepted in (("train", True), ("test", False), (None, False), ("dev", False)):
        keys = {"kind": "local_dataset", "path": str(tmp_path), "split": split}
        settings = parse(AnySource, keys)
        if accepted:
            check(settings, "text.sources[0]")
            assert read(**keys) == ["a", "b"]
            continue
        for ask in (lambda each=settings: check(each, "text.sources[0]"), lambda k=keys: read(**k)):
            with pytest.raises(ValueError, match=r"parquet|split: expected one of train, test"):
                ask()


def test_a_split_of_a_saved_data_set(tmp_path):
    from datasets import Dataset, DatasetDict

    Dataset.from_pandas(TABLE).save_to_disk(tmp_path / "one")
    Dataset.from_pandas(TABLE, split="test").save_to_disk(tmp_path / "named")
    parts = {"train": Dataset.from_pandas(TABLE[:1]), "test": Dataset.from_pandas(TABLE[1:])}
    DatasetDict(parts).save_to_disk(tmp_path / "several")
    assert read_local(tmp_path / "one") == ["a", "b"]
    with pytest.raises(ValueError, match=r"\.split: expected none, since .*one, got 'train'"):
        read_local(tmp_path / "one", split="train")
    assert read_local(tmp_path / "named", split="test") == ["a", "b"]
    with pytest.raises(ValueError, match=r"\.split: expected one of test in .*named, got 'train'"):
        read_local(tmp_path / "named", split="train")
    assert read_local(tmp_path / "several", split="test") == ["b"]
    for split in ("validation", None):
        with pytest.raises(ValueError, match=r"\.split: expected one of train, test in "):
            read_local(tmp_path / "several", split=split)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.parquet", b"", r"expected a parquet file, got ArrowInvalid: .*0 bytes"),
        ("cut.parquet", b"PAR1PAR1xx", r"expected a parquet file, got ArrowInvalid"),
        ("empty.csv", b"", r"expected a csv file, got EmptyDataError"),
        ("ragged.csv", b"text,b\na,1\nb,2,3\n", r"expected a csv file, got ParserError"),
        ("latin.csv", "text\nfrüh\n".encode("latin-1"), r"got UnicodeDecodeError"),
        ("nul.csv", b"text\na\0b\n", r"expected UTF-8 text, got a NUL character"),
    ],
)
def test_broken_tables_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: .*{message}|{name}: {message}") as caught:
        read_local(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_of_tables(tmp_path, suffix):
    path = write_table(tmp_path / f"a.{suffix}")
    assert read_local(path, column="label") == ["x", "y"]
    with pytest.raises(ValueError, match=r"\.column: expected one of text, n, label, got 'body'"):
        read_local(path, column="body")
    with pytest.raises(ValueError, match=r"\.column: expected .*text.*(int64|int 1)"):
        read_local(path, column="n")


def test_a_folder_with_both_kinds_of_tables_is_refused(tmp_path):
    for suffix in ("csv", "parquet"):
        write_table(tmp_path / f"a.{suffix}")
    with pytest.raises(ValueError, match=r"expected \.parquet files or \.csv files, found both"):
        read_local(tmp_path)
    (tmp_path / "neither").mkdir()
    with pytest.raises(ValueError, match=r"path: expected .parquet or .csv files, or .*neither"):
        read_local(tmp_path / "neither")


# Every key of every kind: what it does to the texts a, b, c (or the message that refuses it).
def make_sources(folder: Path) -> dict[str, dict]:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "body": ["x", "y", "z"]})
    frame.to_json(folder / "a.jsonl", orient="records", lines=True)
    (folder / "a.txt").write_text("a\nb\nc\n")
    write_table(folder / "tables" / "train-0.parquet", frame)
    write_table(folder / "tables" / "test-0.parquet", frame[:1])
    tables = str(folder / "tables")
    return {
        "jsonl": {"kind": "file", "path": str(folder / "a.jsonl")},
        "txt": {"kind": "file", "path": str(folder / "a.txt")},
        "local_dataset": {"kind": "local_dataset", "path": tables, "split": "train"},
        "hub": {"kind": "hub", "name": tables, "split": "train", "streaming": True},
        "sae_probes": {"kind": "sae_probes", "datasets": ["96_spam_is"]},
    }


OBEYED = [
    ("jsonl", {}, ["a", "b", "c"]),
    ("jsonl", {"limit": 2}, ["a", "b"]),
    ("jsonl", {"skip": 1, "limit": 1}, ["b"]),
    ("jsonl", {"column": "body"}, ["x", "y", "z"]),
    ("txt", {"limit": 2}, ["a", "b"]),
    ("txt", {"skip": 2}, ["c"]),
    ("local_dataset", {"limit": 2}, ["a", "b"]),
    ("local_dataset", {"skip": 2}, ["c"]),
    ("local_dataset", {"column": "body"}, ["x", "y", "z"]),
    ("local_dataset", {"split": "test"}, ["a"]),
    ("hub", {"limit": 2}, ["a", "b"]),
    ("hub", {"skip": 2}, ["c"]),
    ("hub", {"column": "body"}, ["x", "y", "z"]),
    ("hub", {"split": "test"}, ["a"]),
    ("hub", {"streaming": False}, ["a", "b", "c"]),
]


@pytest.mark.parametrize(("name", "keys", "texts"), OBEYED)
def test_a_key_that_is_accepted_is_obeyed(tmp_path, monkeypatch, name, keys, texts):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    got = read(**make_sources(tmp_path)[name], **{}) if not keys else None
    got = got or read(**{**make_sources(tmp_path)[name], **keys})
    assert [text.strip() for text in got] == texts


REFUSED = [
    ("jsonl", {"split": "train"}, r"split: unknown key"),
    ("jsonl", {"datasets": ["a"]}, r"datasets: unknown key"),
    ("txt", {"column": "body"}, r"column: expected none for a \.txt file, got 'body'"),
    ("local_dataset", {"revision": "main"}, r"revision: unknown key"),
    ("local_dataset", {"streaming": True}, r"streaming: unknown key"),
    ("local_dataset", {"split": "validation"}, r"split: expected one of train, test"),
    ("hub", {"revision": "main"}, r"revision: expected none for the local folder /"),
    ("hub", {"path": "x"}, r"path: unknown key"),
    ("sae_probes", {"limit": 3}, r"limit: unknown key"),
    ("sae_probes", {"skip": 3}, r"skip: unknown key"),
    ("sae_probes", {"split": "train"}, r"split: unknown key"),
    ("sae_probes", {"column": "prompt"}, r"column: unknown key"),
    ("sae_probes", {"datasets": ["none_such"]}, r"datasets: expected a data set of sae-probes"),
]


@pytest.mark.parametrize(("name", "keys", "message"), REFUSED)
def test_a_key_that_is_not_obeyed_is_refused(tmp_path, name, keys, message):
    with pytest.raises(ValueError, match=rf"text\.sources\[0\]\.{message}"):
        read(**{**make_sources(tmp_path)[name], **keys})


def test_the_tables_above_have_every_key_of_every_source(tmp_path):
    tried: dict[str, set[str]] = {}
    for name, source in make_sources(tmp_path).items():
        keys = [each for row in (*OBEYED, *REFUSED) if row[0] == name for each in row[1]]
        tried.setdefault(source["kind"], set()).update(source, keys)
        fields = type(parse(AnySource, source)).model_fields.keys()
        if name != "txt":  # with jsonl
            assert fields - {"config"} <= tried[source["kind"]], name


@pytest.mark.parametrize("kind", ["file", "local_dataset", "hub"])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_path_that_is_not_there_is_shown_whole(tmp_path, monkeypatch, kind, absolute):
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "a/b/none.txt") if absolute else "./a/b/none.txt"
    source = {"hub": {"name": path, "split": "train"}}.get(kind, {"path": path})
    with pytest.raises(OSError, match=rf"text\.sources\[0\]\..* {tmp_path}/a/b/none\.txt$"):
        read(kind=kind, **source)


def test_lines_keep_their_bytes(tmp_path):
    """What is neither white space at the ends nor a mark at the beginning stays as it is."""
    lines = ["a\u2028b", "x\ufeffy", "tab\tand  spaces", 'quote " and \\ ', "\u00e9 e\u0301"]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    settings = {"sources": [{"kind": "file", "path": str(path)}], "heldout_fraction": 0.5}
    prepare_text(settings, tmp_path / "text")
    written = (tmp_path / "text" / "documents.jsonl").read_text().splitlines()
    assert {json.loads(line)["text"] for line in written} == {line.strip() for line in lines}
