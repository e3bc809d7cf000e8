"""An edit of a local file that a job reads reruns what depends on it; a touch reruns nothing.

No job is run: outputs are empty files, which ``snakemake --touch`` takes for results.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from running import copy_project, plan, run_fork

CONFIG = "local.yaml"


@pytest.fixture(scope="module")
def finished(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which an experiment on local files only is finished, as far as Snakemake knows."""
    from sae_lens import TopKSAE, TopKSAEConfig

    folder = copy_project(tmp_path_factory.mktemp("local") / "project")
    shutil.copytree(tiny_causal, folder / "model")
    for name in ("tokenizer.model", "merges.txt", "README.md"):  # as some models have them
        (folder / "model" / name).write_text("a b\n")
    torch.manual_seed(0)
    TopKSAE(TopKSAEConfig(d_in=16, d_sae=32, k=2)).save_model(folder / "sae")
    (folder / "texts").mkdir()
    for number in range(2):
        lines = [f"Text {line} of {number}.\n" for line in range(12)]  # enough for the check
        (folder / f"texts/{number}.txt").write_text("".join(lines))
    shutil.copytree(folder / "experiments/ravel", folder / "ravel")
    ravel = {"data": "ravel", "entities": {"city": ["Country", "Continent", "Language"]}}
    config = {
        "experiment": "local",
        "text": {"sources": [{"kind": "file", "path": f"texts/{i}.txt"} for i in range(2)]},
        "model": {"name": "model"},
        "activations": {
            "source": "model",
            "layers": [2],
            "n_train_tokens": 100,
            "n_heldout_tokens": 10,
            "slices": 2,
            "context_length": 16,
        },
        "methods": {
            "dbksvd": {"algorithm": "dbksvd"},
            "published": {"algorithm": "pretrained", "path": "sae"},
        },
        "fits": [{"methods": ["dbksvd", "published"], "n_atoms": [32], "k": [2]}],
        "evaluation": {"evals": {"core": {"context_length": 16}, "ravel": ravel}},
    }
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    pretend_to_finish(folder)
    return folder


def pretend_to_finish(folder: Path) -> None:
    """Make all outputs, as empty files, and let Snakemake take them for results."""
    status, output = run_fork(folder, "--dry-run", config=CONFIG)
    assert status == 0, output
    names = re.findall(r"^    output: (.*)$", output, flags=re.MULTILINE)
    for name in {name for line in names for name in line.split(", ")}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    status, output = run_fork(folder, "--touch", "--forceall", "--cores", "1", config=CONFIG)
    assert status == 0, output
    assert plan(folder, CONFIG) == {}


def edit(path: Path) -> None:
    """Change a byte but neither the size nor the modification time."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


FROM_TEXT = {"prepare_text", "extract_activations", "shard_activations", "fit_dictionary"}
FROM_MODEL = {"extract_activations", "prepare_evaluation", "evaluate_dictionary", "fit_dictionary"}
KINDS = {
    "texts/1.txt": (FROM_TEXT, {"prepare_evaluation"}),
    "model/model.safetensors": (FROM_MODEL, {"prepare_text"}),
    "model/tokenizer.json": (FROM_MODEL, {"prepare_text"}),
    "model/tokenizer.model": (FROM_MODEL, {"prepare_text"}),
    "model/merges.txt": (FROM_MODEL, {"prepare_text"}),
    "model/README.md": (set(), FROM_TEXT | FROM_MODEL),
    "sae/sae_weights.safetensors": (
        {"fit_dictionary", "evaluate_dictionary"},
        {"extract_activations", "prepare_evaluation"},
    ),
    "ravel/base": ({"prepare_evaluation", "evaluate_dictionary"}, FROM_TEXT),
}


@pytest.mark.parametrize("name", KINDS)
def test_edit_reruns_what_depends_on_it(finished: Path, name: str):
    path = finished / name
    if path.is_dir():
        path = sorted(path.glob("*.json"))[0]
    before = path.read_bytes()
    reruns, stays = KINDS[name]
    try:
        path.touch()
        assert plan(finished, CONFIG) == {}
        edit(path)
        planned = plan(finished, CONFIG)
    finally:
        path.write_bytes(before)
    assert reruns <= set(planned)
    assert not stays & set(planned)
    assert bool(planned) == bool(reruns)


def test_only_the_fit_of_an_edited_sae_runs(finished: Path):
    path = finished / "sae/sae_weights.safetensors"
    before = path.read_bytes()
    try:
        edit(path)
        planned = plan(finished, CONFIG)
    finally:
        path.write_bytes(before)
    assert (planned["fit_dictionary"], planned["evaluate_dictionary"]) == (1, 1)
    assert plan(finished, CONFIG) == {}


def test_another_revision_is_not_forgotten_behind_the_access_check(tmp_path: Path):
    """Snakemake does not look at params of jobs that have only ancient inputs of one that runs."""
    folder = copy_project(tmp_path / "project")
    config = yaml.safe_load((folder / "experiments/tiny.yaml").read_text())
    config |= {"experiment": "hub", "model": {"name": "some/model", "revision": "0f" * 20}}
    config["evaluation"] = {"evals": {}}
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    pretend_to_finish(folder)
    config["model"]["revision"] = "1f" * 20
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    status, output = run_fork(folder, "--touch", "--cores", "1", config=CONFIG)
    assert status == 0, output
    assert "checkpoint check_access:" in output
    assert output.count("rule extract_activations:") == 2
    assert "checkpoint shard_activations:" in output
