"""Evals that read the run's own held-out documents."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from dbksvd.base.settings import SettingsError
from dbksvd.evaluation.saebench.checks import list_datasets, list_hub_reads
from dbksvd.evaluation.saebench.data.settings import reads_heldout
from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.preparation import prepare_eval
from dbksvd.evaluation.saebench.registry import parse_eval
from dbksvd.evaluation.saebench.replay import RECORD_FILE
from dbksvd.models.loading import load_model
from dbksvd.text.documents import prepare_text

READERS = ("core", "mdl", "token_matching")


@pytest.fixture(scope="module")
def text(tmp_path_factory, make_sentences):
    folder = tmp_path_factory.mktemp("heldout")
    (folder / "a.txt").write_text("\n".join(make_sentences(200)))
    source = {"kind": "file", "path": str(folder / "a.txt")}
    settings = {"sources": [source], "max_documents": 200, "heldout_fraction": 0.3}
    prepare_text(settings, folder / "text")
    return folder / "text"


def read_texts(text) -> list[str]:
    records = map(json.loads, (text / "documents.jsonl").read_text().splitlines())
    return [record["text"] for record in records if record["split"] == "heldout"]


def prepare(model, text, folder, **settings) -> list[list[int]]:
    loaded = load_model({"name": str(model), "device": "cpu"})
    loaded.tokenizer.pad_token = "[PAD]"
    loaded.tokenizer.eos_token = "[UNK]"
    site = EvalSite("tiny", 2, 0, loaded.kind)
    folder.mkdir()
    settings = {"datasets": "heldout", "texts": 9, "context_length": 8, **settings}
    prepare_eval("core", loaded, site, settings, folder, text=text)
    return loaded.tokenizer, load_file(folder / RECORD_FILE)["ids"].tolist()


def test_core_of_an_encoder_reads_the_held_out_documents(tiny_encoder, text, tmp_path):
    tokenizer, ids = prepare(tiny_encoder, text, tmp_path / "core")
    options = {"padding": "max_length", "truncation": True, "max_length": 8}
    assert ids == tokenizer(read_texts(text)[:9], **options)["input_ids"]


def test_core_of_a_causal_model_packs_them(tiny_causal, text, tmp_path):
    tokenizer, ids = prepare(tiny_causal, text, tmp_path / "core")
    packed: list[int] = []
    for each in read_texts(text):
        packed += [*tokenizer(each)["input_ids"], tokenizer.eos_token_id]
    assert ids == [packed[start : start + 8] for start in range(0, 72, 8)]


def test_too_few_documents_and_no_text_are_one_line(tiny_encoder, text, tmp_path):
    count = len(read_texts(text))
    with pytest.raises(ValueError, match=f"^texts: expected at most {count}, .*, got 999$"):
        prepare(tiny_encoder, text, tmp_path / "many", texts=999)
    with pytest.raises(ValueError, match=r"^datasets: heldout: expected text of the run's own"):
        prepare(tiny_encoder, None, tmp_path / "none")


@pytest.mark.parametrize("name", READERS)
def test_every_reader_of_plain_text_can(name):
    for values in ({"datasets": "heldout"}, {"datasets": ["heldout"]}, {"data": "heldout"}):
        settings = parse_eval(name, values)
        assert reads_heldout(settings)
        assert settings == parse_eval(name, settings.dump())
        assert list_datasets({name: settings}) == list_hub_reads({name: settings}) == []
    assert not reads_heldout(parse_eval(name, {}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"datasets": ["heldout", "96_spam_is"]}, "datasets: expected heldout alone"),
        ({"data": "heldout", "datasets": ["96_spam_is"]}, "datasets: expected heldout alone"),
        ({"data": "hub", "datasets": "heldout"}, "data: expected heldout, as datasets has"),
        ({"datasets": "96_spam_is"}, "datasets: expected array, got '96_spam_is'"),
    ],
)
def test_contradictions_are_named(values, message):
    with pytest.raises(SettingsError, match=rf"^evaluation\.evals\.core\.{message}"):
        parse_eval("core", values)
