"""What `dbksvd init` writes can be run with the text or images that it looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from image_helpers import save_dinov2, save_photographs

from dbksvd.activations.settings import TextRowSettings
from dbksvd.base.settings import SettingsError
from dbksvd.base.splits import SPLITS
from dbksvd.images.amount import count_patches
from dbksvd.images.prepare import prepare_images
from dbksvd.models.loading import load_model
from dbksvd.models.settings import ModelSettings
from dbksvd.text.amount import count_most_tokens, count_words
from dbksvd.text.documents import iterate_documents, prepare_text
from dbksvd.text.settings import TextSettings
from dbksvd.text.sources.sae_probes import list_probe_datasets, read_csv_texts
from dbksvd.text.tokens import select_tokens
from workflow.commands.init import write_config
from workflow.commands.init_text import round_down
from workflow.experiment import Experiment
from workflow.local_checks import check_local

NEWS = "161_agnews_0"


@pytest.fixture(scope="module")
def news() -> list[str]:
    (path,) = list_probe_datasets([NEWS], "datasets")
    return [" ".join(text.split()) for text in read_csv_texts(path)[:200]]


def write_texts(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    return path


def read_config(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def test_a_small_text_gives_as_many_tokens_as_the_config_takes(news: list[str], tmp_path: Path):
    path = write_config(tmp_path / "new", text=str(write_texts(tmp_path / "a.jsonl", news)))
    config = read_config(path)
    rows = config["activations"]
    assert 1000 <= rows["n_train_tokens"] < 200_000
    assert all(grid["n_atoms"][0] <= rows["n_train_tokens"] for grid in config["fits"])
    prepare_text(config["text"], tmp_path / "text")
    tokenizer = load_model(ModelSettings(**config["model"]), gpus=0).tokenizer
    for split in SPLITS:
        quota = rows[f"n_{split}_tokens"]
        selected = select_tokens(
            iterate_documents(tmp_path / "text", split),
            tokenizer,
            quota=quota,
            context_length=TextRowSettings.model_fields["context_length"].default,
            tokens_per_document=None,
        )
        assert sum(len(document.kept) for document in selected) == quota


def test_words_are_counted_by_split_and_as_far_as_they_are_read(tmp_path: Path):
    texts = [f"{number} a b c" for number in range(100)]
    source = {"kind": "file", "path": str(write_texts(tmp_path / "a.jsonl", texts + texts))}
    settings = TextSettings(sources=[source | {"column": "body"}])
    words = count_words(settings, most=3)
    assert sum(words.values()) == 300
    manifest = prepare_text(settings, tmp_path / "text")
    assert words == {split: 3 * manifest["documents"][split] for split in SPLITS}
    assert count_most_tokens(settings, 2) == 200
    assert count_most_tokens(settings, 100) == sum(map(len, texts))
    assert count_most_tokens(TextSettings(sources=[{"kind": "sae_probes"}]), 100) is None


def test_counts_are_rounded_down():
    assert [round_down(count) for count in (7, 99, 101, 27_999)] == [7, 99, 100, 27_000]


def test_a_text_that_is_too_small_is_refused(news: list[str], tmp_path: Path):
    few = write_texts(tmp_path / "few.jsonl", news[:3])
    with pytest.raises(ValueError, match=r"--text: expected at least 1000 words of train"):
        write_config(tmp_path / "new", text=str(few))
    assert not (tmp_path / "new").exists()


def test_the_check_finds_a_text_that_is_too_small(news: list[str], tmp_path: Path):
    texts = write_texts(tmp_path / "a.jsonl", news)
    config = read_config(write_config(tmp_path / "new", text=str(texts)))
    config["activations"]["n_train_tokens"] = 200_000
    with pytest.raises(SettingsError, match=r"^text\.sources: expected text for .*, got at most"):
        check_local(Experiment(config))
    config["text"]["max_documents"] = 10
    with pytest.raises(SettingsError, match=r"^text\.max_documents: expected at least \d+ for"):
        check_local(Experiment(config))


def test_a_table_needs_the_name_of_its_column(news: list[str], tmp_path: Path):
    table = tmp_path / "a.csv"
    table.write_text("label,content\n" + "".join(f'1,"{t.replace(chr(34), "")}"\n' for t in news))
    with pytest.raises(ValueError, match=r"column: expected one of label, content, got 'text'"):
        write_config(tmp_path / "new", text=str(table))
    config = read_config(write_config(tmp_path / "new", text=str(table), column="content"))
    assert config["text"]["sources"][0]["column"] == "content"
    with pytest.raises(ValueError, match=r"--column: expected a text with columns, got None"):
        write_config(tmp_path / "other", column="content")


def test_images_give_as_many_patches_as_the_config_takes(tmp_path: Path):
    save_photographs(tmp_path / "photos", 53)
    save_dinov2(tmp_path / "vit")
    assert count_patches(tmp_path / "vit/config.json") == 16
    path = write_config(
        tmp_path / "new", data=str(tmp_path / "photos"), model=str(tmp_path / "vit")
    )
    config = read_config(path)
    manifest = prepare_images(config["images"], tmp_path / "images")
    for split in SPLITS:
        patches = 16 * manifest["images"][split]
        assert 0.9 * patches <= config["activations"][f"n_{split}_tokens"] <= patches
    check_local(Experiment(config))
