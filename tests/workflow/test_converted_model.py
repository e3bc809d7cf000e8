"""The stage that unpacks a GGUF file: what waits for it, and what an edit of the file reruns."""

import re
from pathlib import Path

import pytest
import yaml
from gguf_writing import train_tokenizer, write_gguf
from running import copy_project, run_fork, run_snakemake

from workflow.commands.init import write_config

CONFIG, FILE = "converted.yaml", "tiny model.Q4_1.gguf"
FOLDER = "results/converted/model/tiny-model.Q4_1"
SEAL, WEIGHTS = f"{FOLDER}.json", f"{FOLDER}/model.safetensors"
PARTS = "results/converted/layer1/shards/manifest.json"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an experiment on a small GGUF file."""
    folder = copy_project(tmp_path_factory.mktemp("converted") / "project")
    write_gguf(folder / FILE, train_tokenizer())
    lines = [f"a house of {i} trees\nthe  {i} dogs and a  tree" for i in range(150)]
    (folder / "texts.txt").write_text("\n".join(lines))
    config = {
        "experiment": "converted",
        "text": {"sources": [{"kind": "file", "path": "texts.txt"}]},
        "model": {"gguf": FILE},
        "activations": {
            "source": "model",
            "layers": [1],
            "n_train_tokens": 200,
            "n_heldout_tokens": 20,
            "context_length": 16,
        },
        "methods": {"dbksvd": {"algorithm": "dbksvd"}},
        "fits": [{"methods": ["dbksvd"], "n_atoms": [32], "k": [2]}],
        "evaluation": {
            "evals": {"core": {"datasets": "heldout", "texts": 4, "context_length": 16}}
        },
        "pages": None,
    }
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def list_jobs(folder: Path, *arguments: str) -> dict[str, str]:
    """Return {rule: what a dry run says of its last job}."""
    status, output = run_fork(folder, "--dry-run", *arguments, config=CONFIG)
    assert status == 0, output
    jobs = re.split(r"^(?:rule|checkpoint|localrule) (\w+):\n", output, flags=re.MULTILINE)
    return dict(zip(jobs[1::2], jobs[2::2], strict=True))


def test_what_loads_the_model_waits_for_it(project: Path):
    jobs = list_jobs(project)
    inputs = {
        rule: set(re.findall(r"^    input: (.*)$", job, re.MULTILINE)[0].split(", "))
        for rule, job in jobs.items()
        if "    input: " in job
    }
    waiting = {rule for rule, files in inputs.items() if {SEAL, WEIGHTS} <= files}
    assert waiting == {"extract_activations", "prepare_evaluation", "evaluate_dictionary"}
    assert not any({SEAL, WEIGHTS} & inputs[rule] for rule in inputs.keys() - waiting)
    assert f"output: {SEAL}, {WEIGHTS}" in jobs["convert_model"]


def test_a_first_config_may_name_the_file(project: Path, tmp_path: Path):
    write_config(tmp_path, model=str(project / FILE), text=str(project / "texts.txt"))
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["model"] == {"gguf": str(project / FILE)}
    assert config["activations"]["layers"] == [1]
    with pytest.raises(ValueError, match=r"^model\.gguf: expected a GGUF file, found nothing at"):
        write_config(tmp_path / "other", model=str(tmp_path / "no.gguf"))


def test_a_converted_model_runs_and_an_edit_of_the_file_converts_it_again(project: Path):
    done = run_snakemake(project, "--cores", "1", PARTS, config=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "convert_model" not in list_jobs(project)
    path = project / FILE
    path.touch()
    assert "convert_model" not in list_jobs(project)
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    jobs = list_jobs(project)
    assert "Params have changed since last execution" in jobs["convert_model"]
    assert "extract_activations" in jobs
    path.write_bytes(content[:-2000])
    status, output = run_fork(project, "--dry-run", config=CONFIG)
    assert status == 1
    assert re.search(r"^error: config: tiny model\.Q4_1\.gguf: expected a whole GGUF file of \d+ bytes, got \d+$", output, re.MULTILINE)  # fmt: skip
    path.unlink()
    status, output = run_fork(project, "--dry-run", config=CONFIG)
    assert status == 1
    assert "error: config: model.gguf: expected a GGUF file, found nothing at " in output
