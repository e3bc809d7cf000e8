from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest

from dbksvd.base.files import hash_file
from dbksvd.text.documents import check_documents, iterate_documents, prepare_text
from dbksvd.text.sources import list_probe_datasets, read_csv_texts

ROOT = Path(__file__).parents[2]


def settings_for(*sources, **changes):
    return {
        "sources": list(sources),
        "max_documents": 10_000,
        "heldout_fraction": 0.25,
        **changes,
    }


def write_lines(path: Path, lines) -> dict:
    path.write_text("\n".join(lines) + "\n")
    return {"kind": "file", "path": str(path)}


def read_texts(folder: Path) -> list[str]:
    lines = (folder / "documents.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_counts_and_content(tmp_path, make_sentences):
    sentences = make_sentences(100)
    lines = [*sentences, "", "   ", sentences[0], f"  {sentences[1]}\t"]
    manifest = prepare_text(settings_for(write_lines(tmp_path / "a.txt", lines)), tmp_path / "text")
    (counts,) = manifest["sources"].values()
    assert counts == {"read": 104, "empty": 2, "held_out": 0, "duplicates": 2, "kept": 100}
    assert sorted(read_texts(tmp_path / "text")) == sorted(sentences)
    assert sum(manifest["documents"].values()) == 100
    assert sum(manifest["characters"].values()) == sum(map(len, sentences))
    assert manifest["sha256"] == hash_file(tmp_path / "text" / "documents.jsonl")
    assert check_documents(tmp_path / "text") == manifest


def test_order_and_split_depend_on_seed_and_text_only(tmp_path, make_sentences):
    sentences = make_sentences(200)
    forward = settings_for(write_lines(tmp_path / "a.txt", sentences))
    backward = settings_for(write_lines(tmp_path / "b.txt", reversed(sentences)))
    fewer = settings_for(write_lines(tmp_path / "c.txt", sentences[:150]))
    for name, settings in {
        "forward": forward,
        "backward": backward,
        "fewer": fewer,
        "other": {**forward, "seed": 1},
    }.items():
        prepare_text(settings, tmp_path / name)
    order = read_texts(tmp_path / "forward")
    assert order == read_texts(tmp_path / "backward")
    assert order != sentences
    assert order != read_texts(tmp_path / "other")
    kept = set(sentences[:150])
    assert [text for text in order if text in kept] == read_texts(tmp_path / "fewer")
    heldout = {d.text for d in iterate_documents(tmp_path / "forward", "heldout")}
    fewer_heldout = {d.text for d in iterate_documents(tmp_path / "fewer", "heldout")}
    assert fewer_heldout == heldout & kept
    assert 0.1 < len(heldout) / 200 < 0.4


def test_slices_share_out_the_documents_of_a_split(text_folder):
    for split in ("train", "heldout"):
        whole = list(iterate_documents(text_folder, split))
        slices = [
            list(iterate_documents(text_folder, split, slice_index=i, slices=3)) for i in range(3)
        ]
        assert slices[1] == whole[1::3]
        assert sorted(chain(*slices), key=lambda d: d.index) == whole
    train = {d.text for d in iterate_documents(text_folder, "train")}
    assert not train & {d.text for d in iterate_documents(text_folder, "heldout")}


def test_all_kinds_of_local_sources_give_the_same_text(tmp_path, make_sentences):
    from datasets import Dataset, DatasetDict

    sentences = make_sentences(40)
    frame = pd.DataFrame({"body": sentences, "label": 0})
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "tables").mkdir()
    frame[:20].to_csv(tmp_path / "tables" / "0.csv", index=False)
    frame[20:].to_csv(tmp_path / "tables" / "1.csv", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    Dataset.from_pandas(frame).save_to_disk(tmp_path / "disk")
    DatasetDict({"test": Dataset.from_pandas(frame)}).save_to_disk(tmp_path / "splits")
    local = {"kind": "local_dataset", "column": "body"}
    sources = {
        "txt": write_lines(tmp_path / "a.txt", sentences),
        "jsonl": {"kind": "file", "path": str(tmp_path / "a.jsonl"), "column": "body"},
        "parquet": {**local, "path": str(tmp_path / "a.parquet")},
        "csv": {**local, "path": str(tmp_path / "tables")},
        "disk": {**local, "path": str(tmp_path / "disk")},
        "splits": {**local, "path": str(tmp_path / "splits"), "split": "test"},
    }
    for name, source in sources.items():
        prepare_text(settings_for(source), tmp_path / "out" / name)
        assert read_texts(tmp_path / "out" / name) == read_texts(tmp_path / "out" / "txt"), name
    both = settings_for({**sources["txt"], "limit": 25}, sources["parquet"])
    manifest = prepare_text(both, tmp_path / "out" / "both")
    assert [count["duplicates"] for count in manifest["sources"].values()] == [0, 25]


def test_hub_settings_are_passed_on_with_remote_code_off(tmp_path, monkeypatch, make_sentences):
    import datasets

    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        rows = [{"text": text} for text in make_sentences(30)]
        return datasets.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = {"kind": "hub", "name": "some/text", "config": "en", "split": "train"}
    source |= {"revision": "abc", "streaming": True, "limit": 20}
    manifest = prepare_text(settings_for(source), tmp_path / "text")
    assert manifest["sources"]["hub/some/text"]["kept"] == 20
    arguments = {"split": "train", "revision": "abc", "streaming": True, "trust_remote_code": False}
    assert calls == [(("some/text", "en"), arguments)]


def test_held_out_datasets_leave_no_text_in_the_corpus(tmp_path):
    # 161_agnews_0 and 162_agnews_1 share texts, so dropping one file would not be enough.
    source = {"kind": "sae_probes", "datasets": ["161_agnews_0", "162_agnews_1", "96_spam_is"]}
    settings = settings_for(source, held_out_datasets=["161_agnews_0"])
    manifest = prepare_text(settings, tmp_path / "text")
    (path,) = list_probe_datasets(["161_agnews_0"], "test")
    scored = {text.strip() for text in read_csv_texts(path)}
    assert not scored & set(read_texts(tmp_path / "text"))
    counts = manifest["sources"]
    assert counts["sae_probes/161_agnews_0"]["kept"] == 0
    assert counts["sae_probes/162_agnews_1"]["held_out"] > 0
    assert counts["sae_probes/96_spam_is"]["kept"] > 0
    for count in counts.values():
        assert count["read"] == sum(v for key, v in count.items() if key != "read")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out_datasets": ["161_agnews"]}, r"held_out_datasets.*'161_agnews', close.*161_agn"),
        ({"max_document": 3}, r"text\.max_document: unknown key, did you mean 'max_documents'"),
        ({"heldout_fraction": 1.5}, r"text\.heldout_fraction: expected .* between 0 and 1"),
        ({"max_documents": -1}, r"text\.max_documents: expected at least 1, got -1"),
        ({"min_train_documents": 999}, r"expected at least 999 train documents, got \d+ \(read 50"),
        ({"sources": []}, r"text\.sources: expected at least 1"),
        ({"sources": [{"kind": "web"}]}, r"sources\[0\]\.kind: expected one of sae_probes"),
        ({"sources": [{"kind": "file"}]}, r"sources\[0\]\.path: missing key"),
        ({"sources": [{"kind": "hub", "name": "x"}]}, r"sources\[0\]\.split: missing key"),
    ],
)
def test_bad_settings_are_named(tmp_path, changes, message, make_sentences):
    source = write_lines(tmp_path / "a.txt", make_sentences(50))
    with pytest.raises(ValueError, match=message):
        prepare_text({**settings_for(source), **changes}, tmp_path / "text")
    assert not (tmp_path / "text").exists()


def test_bad_files_are_named(tmp_path):
    def prepare(name: str, content: bytes, **source) -> None:
        (tmp_path / name).write_bytes(content)
        source = {"kind": "file", "path": str(tmp_path / name), **source}
        prepare_text(settings_for(source), tmp_path / "text")

    with pytest.raises(ValueError, match=r"got 0 \(read 3, kept 0"):
        prepare("empty.txt", b"\n  \n\n")
    with pytest.raises(ValueError, match=r"bad\.jsonl: line 2: expected a JSON object"):
        prepare("bad.jsonl", b'{"text": "a"}\n{"text": \n')
    with pytest.raises(ValueError, match=r"other\.jsonl: line 1: .* with 'text'"):
        prepare("other.jsonl", b'{"body": "a"}\n')
    with pytest.raises(ValueError, match=r"latin\.txt: expected UTF-8"):
        prepare("latin.txt", "früh".encode("latin-1"))
    with pytest.raises(ValueError, match="document 1: expected Unicode text"):
        prepare("surrogate.jsonl", b'{"text": "\\ud800"}\n')
    with pytest.raises(ValueError, match=r"expected a \.txt or \.jsonl"):
        prepare("a.pdf", b"")
    with pytest.raises(ValueError, match=r"column: expected one of a, got 'text'"):
        prepare("a.csv", b"a\nx\n", kind="local_dataset")
    with pytest.raises(FileNotFoundError, match="found nothing at"):
        prepare("x", b"", kind="local_dataset", path=str(tmp_path / "none"))
    assert not (tmp_path / "text").exists()


def test_changed_documents_are_noticed(tmp_path, make_sentences):
    source = write_lines(tmp_path / "a.txt", make_sentences(50))
    prepare_text(settings_for(source), tmp_path / "text")
    with (tmp_path / "text" / "documents.jsonl").open("a") as stream:
        stream.write("{}\n")
    with pytest.raises(ValueError, match=r"documents\.jsonl: expected sha256 .* got .*delete"):
        check_documents(tmp_path / "text")


def test_script_says_what_is_wrong_in_one_line(tmp_path):
    settings = {"text": settings_for({"kind": "file", "path": str(tmp_path / "none.txt")})}
    command = [sys.executable, str(ROOT / "scripts" / "prepare_text.py")]
    command += ["--settings", json.dumps(settings), "--output", str(tmp_path / "a b" / "text")]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "none.txt" in last
    assert "Traceback" not in done.stderr
    assert list(tmp_path.rglob("*")) == []
