"""What a user has in a folder is never lost, whichever of our functions is told to write there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dbksvd import DBKSVD
from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.sharding import write_shards
from dbksvd.base.checkpoint_files import remove_checkpoint
from dbksvd.base.saving import Folder, check_replaceable
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation.saebench.preparation import prepare_folder
from dbksvd.evaluation.saebench.runner import run_evals
from dbksvd.fit.task import FitResult
from dbksvd.images.prepare import prepare_images
from dbksvd.text.documents import prepare_text

OURS = Folder(("data-*.bin", "manifest.json"), "manifest.json", ("sha256",))
TEXTS = [f"This is a document about number {i} and nothing else at all." for i in range(90)]


def write_ours(folder: Path, *names: str) -> None:
    with OURS.replace(folder) as temporary:
        for name in names:
            (temporary / name).write_text(name)
        (temporary / "manifest.json").write_text('{"sha256": {}}')


def test_a_folder_of_ours_is_replaced_as_a_whole(tmp_path: Path):
    folder = tmp_path / "a" / "b"
    write_ours(folder, "data-0.bin", "data-1.bin")
    (folder / ".snakemake_timestamp").touch()
    write_ours(folder, "data-0.bin")
    assert {path.name for path in folder.iterdir()} == {"data-0.bin", "manifest.json"}
    # as a script does that finds a file damaged
    (folder / "manifest.json").rename(folder / "manifest.json.damaged")
    write_ours(folder, "data-1.bin")
    assert {path.name for path in folder.iterdir()} == {"data-1.bin", "manifest.json"}
    (folder / "manifest.json").unlink()  # as Snakemake does before it runs a rule again
    write_ours(folder, "data-2.bin")
    assert {path.name for path in folder.iterdir()} == {"data-2.bin", "manifest.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["b"]
    (tmp_path / "link").symlink_to(folder)
    write_ours(tmp_path / "link", "data-3.bin")
    assert (tmp_path / "link").is_symlink()
    assert (folder / "data-3.bin").is_file()


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (lambda folder: (folder / "notes.txt").write_text("mine"), r"since it .*got notes\.txt"),
        (lambda folder: (folder / "deep").mkdir(), "got deep"),
        (lambda folder: (folder / ".git").mkdir(), r"got \.git"),
        (lambda folder: (folder / "manifest.json").write_text('{"name": "app"}'), "got another"),
        (lambda folder: (folder / "manifest.json").write_text("[1]"), "got another"),
        (lambda folder: (folder / "manifest.json").mkdir(), "got another"),
        (lambda folder: (folder / "data-0.bin").symlink_to(folder), r"got data-0\.bin"),
    ],
)
def test_what_is_not_ours_is_named_and_stays(tmp_path: Path, put, message: str):
    put(tmp_path)
    before = list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=message) as caught:
        write_ours(tmp_path, "data-1.bin")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == before


def test_what_comes_while_we_work_stays_too(tmp_path: Path):
    with pytest.raises(ValueError, match=r"got notes\.txt"), OURS.replace(tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_seal_replaces_only_a_seal(tmp_path: Path):
    path = tmp_path / "part.json"
    check_replaceable(path, ("sha256",))
    path.write_text('{"sha256": "0", "rows": 1}')
    check_replaceable(path, ("sha256",))
    for text in ('{"name": "mine"}', "mine", "[]", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"part\.json: expected no file, or one with sha256"):
            check_replaceable(path, ("sha256",))


def text_source(folder: Path) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def write_text(output: Path, inputs: Path) -> None:
    prepare_text({"sources": [{"kind": "file", "path": str(text_source(inputs))}]}, output)


def write_images(output: Path, inputs: Path) -> None:
    prepare_images({"folder": str(inputs)}, output)


def write_fit(output: Path, _inputs: Path) -> None:
    dictionary = Dictionary(torch.eye(4), torch.zeros(4), PursuitSettings(1))
    FitResult(dictionary, [], "max_iter", {}).save(output)


def write_part_shards(output: Path, inputs: Path) -> None:
    write_shards([inputs / "part.h5"], {}, output)


def write_prepared(output: Path, _inputs: Path) -> None:
    prepare_folder("core", {"settings": {}, "model": {}, "layer": 1, "seed": 0}, output)


@pytest.mark.parametrize(
    "write",
    [write_text, write_images, write_fit, write_part_shards, write_prepared],
)
def test_no_stage_deletes_what_it_did_not_write(tmp_path: Path, write):
    output, inputs = tmp_path / "home", tmp_path / "inputs"
    output.mkdir()
    inputs.mkdir()
    (output / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"home: expected a new folder.* got thesis\.tex"):
        write(output, inputs)
    assert (output / "thesis.tex").read_text() == "mine"
    assert [path.name for path in output.iterdir()] == ["thesis.tex"]


def test_a_part_keeps_a_foreign_json_beside_it(tmp_path: Path):
    (tmp_path / "part.json").write_text('{"mine": 1}')
    x = tmp_path / "x.safetensors"
    save_file({"x": torch.randn(40, 4)}, x)
    settings = {
        **{"source": "files", "files": {"path": str(x)}, "n_train_tokens": 20},
        **{"n_heldout_tokens": 10},
    }
    with pytest.raises(ValueError, match=r"part\.json: expected no file, or one with"):
        extract_slice(settings, 0, tmp_path / "part.h5")
    assert json.loads((tmp_path / "part.json").read_text()) == {"mine": 1}


def test_scores_leave_folders_that_are_no_evals(tmp_path: Path):
    dictionary = tmp_path / "dictionary"
    Dictionary(torch.eye(4), torch.zeros(4), PursuitSettings(1)).save(dictionary)
    output = tmp_path / "home"
    for name in ("pictures", "core", "scr"):
        (output / name).mkdir(parents=True)
        (output / name / "mine.txt").write_text("mine")
    run_evals(dictionary, {}, tmp_path, output, load_model=lambda: pytest.fail("no model"))
    for name in ("pictures", "core", "scr"):
        assert (output / name / "mine.txt").read_text() == "mine"


def test_a_checkpoint_folder_keeps_other_files(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    options = {"max_iter": 2, "polish_iter": 0, "device": "cpu", "checkpoint_seconds": 0}
    DBKSVD(8, 2, checkpoint=tmp_path, **options).fit(x)
    assert (tmp_path / "checkpoint.safetensors").is_file()
    (tmp_path / ".checkpoint-abcd1234.safetensors").touch()  # of a killed fit
    remove_checkpoint(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "notes.txt").unlink()
    remove_checkpoint(tmp_path)
    assert not tmp_path.exists()
    tmp_path.mkdir()
    save_file({"weights": torch.ones(3)}, tmp_path / "checkpoint.safetensors")
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors: expected a checkpoint"):
        DBKSVD(8, 2, checkpoint=tmp_path, **options).fit(x)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
