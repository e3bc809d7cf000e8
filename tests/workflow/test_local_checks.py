"""What a config names on this machine is looked at when the config is read."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet
from running import ROOT, copy_project, run_fork
from safetensors.numpy import save_file

from dbksvd.base.settings import SettingsError
from workflow.experiment import Experiment
from workflow.local_checks import check_local

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
TINY = yaml.safe_load((ROOT / "experiments/tiny.yaml").read_text())
READY: dict[str, Any] = {
    "experiment": "ready",
    "activations": {"source": "files", "n_train_tokens": 80, "n_heldout_tokens": 20},
    "methods": {"raw": {"algorithm": "identity"}},
    "fits": [{"methods": ["raw"], "n_atoms": [16], "k": [2]}],
}
BELOW = "(relative paths begin at the working directory)"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def find_problems(config: dict[str, Any]) -> list[str]:
    experiment = Experiment(config)
    try:
        check_local(experiment)
    except SettingsError as error:
        return [*error.problems]
    return []


def with_file(**files: Any) -> dict[str, Any]:
    config = copy.deepcopy(READY)
    config["activations"]["files"] = files
    return config


def with_text(**source: Any) -> dict[str, Any]:
    enough = {"kind": "sae_probes"}  # the source itself may be as small as it likes
    return {**TINY, "text": {**TINY["text"], "sources": [source, enough]}}


def with_model(**model: Any) -> dict[str, Any]:
    activations = {**TINY["activations"], "layers": [1]}
    return {**TINY, "model": model, "activations": activations, "evaluation": {}}


def save_arrays(folder: Path) -> None:
    x = np.zeros((100, 16), np.float32)
    np.save(folder / "good.npy", x)
    np.save(folder / "half.npy", x.astype(np.float16))
    np.save(folder / "few.npy", x[:99])
    np.save(folder / "narrow.npy", x[:, :8])
    np.save(folder / "whole.npy", x.astype(np.int32))
    np.save(folder / "cube.npy", x[:, :, None])
    np.savez(folder / "x.npz", x)
    (folder / "x.npz").rename(folder / "zip.npy")
    (folder / "cut.npy").write_bytes((folder / "good.npy").read_bytes()[:-1])
    (folder / "pointer.npy").write_text(POINTER)
    (folder / "text.npy").write_text("hello, world")
    (folder / "none.npy").touch()
    save_file({"activations": x, "other": x[:5]}, folder / "good.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "good.safetensors").read_bytes()[:-1])
    with h5py.File(folder / "good.h5", "w") as file:
        file["activations"], file["a/b"], file["number"] = x, x, 1.0
    with h5py.File(folder / "links.h5", "w", libver="latest") as file:
        file["inside"] = h5py.ExternalLink("good.h5", "a/b")
        file["gone"] = h5py.ExternalLink("gone.h5", "x")
        file["dangling"], file["circle"] = h5py.SoftLink("/no"), h5py.SoftLink("/circle")
        file.create_dataset("unwritten", (100, 16), "f4", chunks=(50, 16))
        layout = h5py.VirtualLayout((100, 16), "f4")
        layout[:] = h5py.VirtualSource("gone.h5", "x", (100, 16))
        file.create_virtual_dataset("virtual", layout)
    os.mkfifo(folder / "pipe.npy")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        *[({"path": path}, None) for path in ("good.npy", "half.npy", "good.safetensors", "good.h5", "~/good.npy", "./good.npy")],
        ({"path": "good.h5", "tensor": "a/b"}, None),
        ({"path": "no.npy"}, "activations.files.path: expected a file of kind .npy, .h5, .hdf5, .safetensors, found nothing at {here}/no.npy " + BELOW),
        ({"path": "/no/x.npy"}, "activations.files.path: expected a file of kind .npy, .h5, .hdf5, .safetensors, found nothing at /no/x.npy"),
        ({"path": "~nobody-here/x.npy"}, "found nothing at {here}/~nobody-here/x.npy"),
        ({"path": "."}, "got the folder {here}"),
        ({"path": "few.npy"}, "activations.files.path: expected at least 100 rows (80 + 20), got 99 in few.npy"),
        ({"path": "narrow.npy"}, "methods.raw.n_atoms: expected at most the width 8, got 16"),
        ({"path": "whole.npy"}, "activations.files: expected a floating dtype, got int32 in whole.npy"),
        ({"path": "cube.npy"}, "activations.files: expected an array of shape (rows, d), got (100, 16, 1) in cube.npy"),
        ({"path": "zip.npy"}, "zip.npy: expected a whole .npy array, got: an archive, as .npz files are"),
        ({"path": "cut.npy"}, "cut.npy: expected a whole .npy array of 6528 bytes, got 6527"),
        ({"path": "pointer.npy"}, "got a pointer of git-lfs at {here}/pointer.npy"),
        ({"path": "text.npy"}, "text.npy: expected a whole .npy array, got: "),
        ({"path": "none.npy"}, "got an empty file at {here}/none.npy"),
        ({"path": "good.npy", "tensor": "x"}, "activations.files.tensor: no use for a .npy file"),
        ({"path": "good.safetensors", "tensor": "othr"}, "activations.files.tensor: expected one of activations, other in good.safetensors, did you mean 'other'?, got 'othr'"),
        ({"path": "good.safetensors", "tensor": "other"}, "expected at least 100 rows (80 + 20), got 5"),
        ({"path": "cut.safetensors"}, "cut.safetensors: expected a whole safetensors file"),
        ({"path": "good.h5", "tensor": "a"}, "activations.files.tensor: expected one of a, activations, number in good.h5"),
        ({"path": "links.h5", "tensor": "inside"}, None),
        ({"path": "links.h5", "tensor": "gone"}, "links.h5: expected the link 'gone' to gone.h5, no such file"),
        ({"path": "links.h5", "tensor": "dangling"}, "links.h5: expected a dataset '/no', found ["),
        ({"path": "links.h5", "tensor": "circle"}, "links.h5: expected a dataset '/circle', got a circle of links"),
        ({"path": "links.h5", "tensor": "virtual"}, "links.h5: expected '/virtual' from gone.h5, no such file"),
        ({"path": "links.h5", "tensor": "unwritten"}, "links.h5: dataset '/unwritten': expected data, 0 of 2 chunks are written"),
        ({"path": "links.h5", "tensor": "no"}, "activations.files.tensor: expected one of circle, dangling, gone, inside, unwritten, virtual in links.h5, got 'no'"),
        ({"path": "pipe.npy"}, "got a pipe or a device at {here}/pipe.npy"),
        ({"path": "good.h5", "tensor": "number"}, "expected an array of shape (rows, d), got ()"),
    ],
)  # fmt: skip
def test_ready_activations(here: Path, files: dict[str, Any], problem: str | None):
    save_arrays(here)
    found = find_problems(with_file(**files))
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1
        assert problem.format(here=here) in found[0]


@pytest.mark.parametrize("algorithm", ["identity", "dbksvd", "ksvd"])
def test_more_non_zeros_than_the_width(here: Path, algorithm: str):
    save_arrays(here)
    config = with_file(path="narrow.npy")
    config["methods"] = {"m": {"algorithm": algorithm, "pursuit": "omp"}}
    config["fits"] = [{"methods": ["m"], "n_atoms": [8], "k": [8]}]
    assert find_problems(config) == []
    if algorithm == "identity":
        return
    config["fits"] = [{"methods": ["m"], "n_atoms": [16], "k": [8, 9]}]
    assert find_problems(config) == [
        "methods.m.pursuit: expected mp for k = 9, above the width 8 of the activations, got omp"
    ]
    config["methods"]["m"]["pursuit"] = "mp"
    assert find_problems(config) == []


def save_text(folder: Path) -> None:
    (folder / "a.txt").write_text("one\ntwo\n")
    (folder / "latin.txt").write_bytes("schön".encode("latin-1"))
    (folder / "long.txt").write_text("ä" * 70_000)
    (folder / "a.jsonl").write_text('\ufeff\n{"body": "x"}\n')
    (folder / "list.jsonl").write_text("[1]\n")
    (folder / "bad.jsonl").write_text("{'body': 1}\n")
    parquet.write_table(pa.table({"text": ["a"], "n": [1]}), folder / "a.parquet")
    (folder / "bad.parquet").write_text("no parquet at all")
    (folder / "a.csv").write_text('\ufefftext,"n,m"\nx,1\n')
    (folder / "empty").mkdir()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"kind": "file", "path": "~/a.txt"}, None),
        ({"kind": "file", "path": "long.txt"}, None),
        ({"kind": "file", "path": "a.jsonl", "column": "body"}, None),
        ({"kind": "local_dataset", "path": "a.parquet"}, None),
        ({"kind": "local_dataset", "path": "a.csv", "column": "n,m"}, None),
        ({"kind": "file", "path": "no.txt"}, ".path: expected a .txt or .jsonl file, found nothing at {here}/no.txt " + BELOW),
        ({"kind": "file", "path": "empty"}, ".path: expected a .txt or .jsonl file, got the folder {here}/empty"),
        ({"kind": "file", "path": "a.csv"}, ".path: expected a .txt or .jsonl file, got a.csv"),
        ({"kind": "file", "path": "latin.txt"}, ".path: expected UTF-8 text in latin.txt"),
        ({"kind": "file", "path": "a.jsonl"}, ".column: expected one of body in a.jsonl, got 'text'"),
        ({"kind": "file", "path": "list.jsonl"}, ".path: expected a JSON object a line, got list in line 1 of list.jsonl"),
        ({"kind": "file", "path": "bad.jsonl"}, ".path: expected a JSON object a line, got \"{{'body': 1}}\" in line 1 of bad.jsonl"),
        ({"kind": "local_dataset", "path": "a.parquet", "column": "txt"}, ".column: expected one of text, n in a.parquet, did you mean 'text'?, got 'txt'"),
        ({"kind": "local_dataset", "path": "a.parquet", "column": "n"}, ".column: expected text in 'n' of a.parquet, got int64"),
        ({"kind": "local_dataset", "path": "bad.parquet"}, ".path: expected a whole .parquet file at bad.parquet"),
        ({"kind": "local_dataset", "path": "a.csv", "column": "n"}, ".column: expected one of text, n,m in a.csv"),
        ({"kind": "local_dataset", "path": "empty"}, ".path: expected .parquet or .csv files, or a folder written by save_to_disk, found none in empty"),
        ({"kind": "hub", "name": "/no/such", "split": "train"}, ".name: expected a folder, or a name on the hub, found nothing at /no/such"),
        ({"kind": "sae_probes", "datasets": ["96_spam"]}, ".datasets: expected a data set of sae-probes, got '96_spam'"),
    ],
)  # fmt: skip
def test_text(here: Path, source: dict[str, Any], problem: str | None):
    save_text(here)
    found = find_problems(with_text(**source))
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].startswith(f"text.sources[0]{problem.format(here=here)}")


def save_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 16, "num_hidden_layers": 2}')
    (folder / "tokenizer.json").write_text("{}")
    save_file({"weight": np.zeros(3)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda m: m.exists(), None),
        (lambda m: (m / "config.json").unlink(), "expected a model folder with config.json, found nothing at "),
        (lambda m: (m / "tokenizer.json").unlink(), "expected a model folder with the files of its tokenizer, such as tokenizer.json, found none in "),
        (lambda m: (m / "tokenizer.json").write_text(POINTER), "expected the file of a tokenizer, got a pointer of git-lfs at "),
        (lambda m: (m / "model.safetensors").write_text(POINTER), "expected a model folder with model.safetensors, got a pointer of git-lfs at "),
        (lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"), "expected a model folder with model.safetensors, found none but pytorch_model.bin in "),
        (lambda m: (m / "model.safetensors").rename(m / "model-00001.safetensors"), "expected a model folder with model.safetensors, found none in "),
    ],
)  # fmt: skip
def test_model_folders(here: Path, damage: Callable[[Path], Any], problem: str | None):
    save_model(here / "model")
    damage(here / "model")
    found = find_problems(with_model(name="~/model"))
    assert found == [] if problem is None else found[0].startswith(f"model.name: {problem}{here}")


@pytest.mark.parametrize(
    ("names", "most"),
    [
        ({"max_position_embeddings": 32}, 32),
        ({"model_type": "gpt2", "n_positions": 32}, 32),
        ({"model_type": "mpt", "max_seq_len": 32}, 32),
        ({"text_config": {"hidden_size": 16, "num_hidden_layers": 2, "max_position_embeddings": 32}}, 32),
        ({"max_position_embeddings": -1}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_a_context_longer_than_the_model_s_positions(here: Path, names: dict[str, Any], most: int | None):  # fmt: skip
    save_model(here / "model")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "n_embd": 16, "n_layer": 2, "d_model": 16, "n_layers": 2}  # fmt: skip
    (here / "model/config.json").write_text(json.dumps({**sizes, **names}))
    config = with_model(name="~/model")
    config["activations"]["context_length"] = 32
    assert find_problems(config) == []
    config["evaluation"] = {"evals": {"core": {"datasets": ["96_spam_is"], "context_length": 33}}}
    if most is not None:
        with pytest.raises(SettingsError) as error:
            Experiment(config)
        assert error.value.problems == (
            "evaluation.evals.core.context_length: expected at most 32, the positions of ~/model, "
            "got 33",
        )
    config["evaluation"] = {}
    config["activations"]["context_length"] = 33
    if most is None:
        assert find_problems(config) == []
        return
    with pytest.raises(SettingsError) as error:
        Experiment(config)
    assert error.value.problems == (
        "activations.context_length: expected at most 32, the positions of ~/model, got 33",
    )


def test_weights_in_several_files(here: Path):
    save_model(here / "model")
    (here / "model/model.safetensors").rename(here / "model/one.safetensors")
    index = here / "model/model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}')
    [problem] = find_problems(with_model(name="model"))
    assert "two.safetensors, found nothing at" in problem
    (here / "model/one.safetensors").rename(here / "model/two.safetensors")
    index.write_text('{"weight_map": {"a": "two.safetensors"}}')
    assert find_problems(with_model(name="model")) == []


@pytest.mark.parametrize("name", ["/no/model", "./model", "~/model", "a/b/c"])
def test_a_path_is_a_path(name: str):
    [problem] = find_problems(with_model(name=name))
    assert problem.startswith("model.name: expected a model folder, or a name on the hub, found")


def test_images(here: Path):
    save_model(here / "model")
    (here / "model/preprocessor_config.json").write_text("{}")
    config: dict[str, Any] = {
        **with_model(name="model"),
        "images": {"folder": "photographs"},
        "activations": {"source": "images", "layers": [1], "image_tokens": "cls", "n_train_tokens": 10, "n_heldout_tokens": 2},
    }  # fmt: skip
    del config["text"]
    config["fits"] = [{**grid, "n_atoms": [8], "k": [2]} for grid in config["fits"]]
    assert find_problems(config) == [
        f"images.folder: expected a folder, found nothing at {here}/photographs {BELOW}"
    ]
    (here / "photographs/inner").mkdir(parents=True)
    (here / "photographs/a.png").write_bytes(b"x")
    assert "expected 2 files at least that end with .bmp" in find_problems(config)[0]
    (here / "photographs/inner/b.JPG").write_bytes(b"x")
    assert find_problems(config) == []


def test_published_saes_are_compared_with_the_activations(here: Path):
    (here / "sae").mkdir()
    (here / "sae/cfg.json").write_text('{"d_sae": 32, "d_in": 16, "architecture": "standard"}')
    config = with_file(path="x.npy")
    config["methods"] = {"sae": {"algorithm": "pretrained", "path": "~/sae"}}
    config["fits"] = [{"methods": ["sae"], "n_atoms": [32], "k": [2]}]
    np.save(here / "x.npy", np.zeros((100, 16)))
    save_file({"W_dec": np.zeros((32, 16))}, here / "sae/sae_weights.safetensors")
    assert find_problems(config) == []
    np.save(here / "x.npy", np.zeros((100, 8)))
    [problem] = find_problems(config)
    assert problem.startswith("methods.sae.path: expected a decoder of shape (32, 8)")
    (here / "sae/sae_weights.safetensors").write_text(POINTER)
    [problem] = find_problems(config)
    assert (
        "methods.sae.path: expected a folder with sae_weights.safetensors, got a pointer" in problem
    )


def test_all_that_is_missing_is_named_at_once():
    config = with_model(name="/no/model")
    config["text"] = {"sources": [{"kind": "file", "path": f"/no/{name}.txt"} for name in "ab"]}
    assert [problem.split(":")[0] for problem in find_problems(config)] == [
        "model.name",
        "text.sources[0].path",
        "text.sources[1].path",
    ]


def test_large_files_are_not_read(here: Path):
    with (here / "x.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (10**8, 16)}
        )
        stream.truncate(stream.tell() + 64 * 10**8)
    with (here / "x.txt").open("wb") as stream:
        stream.write(b"line\n")
        stream.truncate(10**10)
    began = time.perf_counter()
    assert find_problems(with_file(path="x.npy")) == []
    assert find_problems(with_text(kind="file", path="x.txt")) == []
    assert time.perf_counter() - began < 1


def test_checks_need_no_torch():
    code = (
        "import sys, workflow.local_checks; assert not {'torch', 'pandas', 'h5py'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("arguments", [["-n"], ["--cores", "1"]])
def test_a_run_ends_before_anything_is_removed(here: Path, arguments: list[str]):
    folder = copy_project(here / "project")
    (folder / "mine.yaml").write_text(yaml.safe_dump(with_file(path="no.npy")))
    status, output = run_fork(folder, *arguments, config="mine.yaml")
    assert status == 1, output
    assert (
        f"error: config: activations.files.path: expected a file of kind .npy, .h5, .hdf5, .safetensors, found nothing at {folder}/no.npy"
        in output
    )
    assert "Traceback" not in output
    assert not (folder / "results").exists()


def test_a_config_of_ones_own_takes_one_refusal(here: Path):
    folder = copy_project(here / "project")
    (folder / "mine.yaml").write_text(
        "experiment: no\nactivations: {source: files, n_train_tokens: 1.5}\n"
        "methods: {a: {algorithm: sae, architecture: topk, lrr: 1}, b: {}}\nfits: [{k: [0]}]\n"
    )
    status, output = run_fork(folder, "-n", config="mine.yaml")
    assert status == 1, output
    lines = [line for line in output.splitlines() if line.startswith("error: config: ")]
    assert lines[-1] == "error: config: 5 problems"
    for key in (
        "methods.a.lrr: unknown key",
        "activations.files, methods.b.algorithm, fits[0].methods, fits[0].n_atoms: missing keys",
        "experiment: expected string, got False",
        "activations.n_train_tokens: expected integer, got 1.5",
        "fits[0].k[0]: expected at least 1, got 0",
    ):
        assert sum(line.startswith(f"error: config: {key}") for line in lines) == 1, key


def test_a_key_that_is_written_twice_ends_the_run(here: Path):
    folder = copy_project(here / "project")
    text = yaml.safe_dump(with_file(path="no.npy"))
    count = len(text.splitlines())
    (folder / "mine.yaml").write_text(text + "experiment: other\n")
    status, output = run_fork(folder, "-n", "--config", "experiment=third", config="mine.yaml")
    assert status == 1, output
    first = text.splitlines().index("experiment: ready") + 1
    [line] = [line for line in output.splitlines() if line.startswith("error: ")]
    assert line == (
        f"error: config: {folder}/mine.yaml: line {count + 1}: experiment: expected a key once, "
        f"got it in lines {first} and {count + 1}"
    )


def test_methods_that_no_fit_uses_are_told(here: Path):
    folder = copy_project(here / "project")
    config = with_file(path="x.npy")
    topk = {"algorithm": "sae", "architecture": "topk"}
    config["methods"] |= {
        "topk": topk,
        "idle": topk,
        "shuffled": {"algorithm": "permuted", "of": "topk"},
    }
    config["fits"][0]["methods"] = ["raw", "shuffled"]
    np.save(folder / "x.npy", np.zeros((100, 16)))
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    status, output = run_fork(folder, "-n", config="mine.yaml")
    assert status == 0, output
    assert "note: config: no fit uses the methods idle\n" in output
