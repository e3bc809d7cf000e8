"""What README shows runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from doc_blocks import PAGES

from workflow.experiment import Experiment
from workflow.layers import lay_over

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def find_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
def test_python_runs_and_saelens_loads_what_it_saved(tmp_path: Path):
    (code,) = find_blocks("python")
    code += (
        "import dbksvd\nfrom sae_lens import SAE\n"
        "sae = SAE.load_from_disk('my-dictionary')\n"
        "assert (sae.decode(sae.encode(x)) - reconstruction).abs().max() < 1e-5\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_own_model_config_is_valid():
    (block,) = find_blocks("yaml")
    config = yaml.safe_load((ROOT / "experiments/own-model.yaml").read_text())
    assert Experiment(lay_over(config, yaml.safe_load(block))).sites == ["layer8"]


def test_own_model_config_is_short():
    assert len((ROOT / "experiments/own-model.yaml").read_text().splitlines()) <= 20


@pytest.mark.skipif(not (ROOT / ".venv/.locked").is_file(), reason="no environment of make env")
def test_make_estimate_runs_in_the_environment():
    command = ["make", "-s", "estimate", "EXPERIMENT=experiments/tiny.yaml"]
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "tiny on one CPU core" in done.stdout


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_link_to_what_is_there(path: Path):
    for link in re.findall(r"\]\(([^)h][^)]*)\)", path.read_text()):
        target, _, heading = link.partition("#")
        assert (path.parent / target).exists() if target else True, link
        if heading:
            text = (path.parent / target).read_text() if target else path.read_text()
            titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
            named = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in named, link


@pytest.mark.parametrize("target", re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE))
def test_make_targets_exist(target: str):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_explain_command_reaches_the_script(tmp_path: Path):
    """What README's command runs, with a stand-in for Python; test_explain_page.py runs the rest."""
    (command,) = re.findall(r"`(make explain [^`]*)`", README)
    (text,) = re.findall(r'TEXT="([^"]*)"', command)
    stand_in = tmp_path / "bin" / "python"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    folder = os.path.relpath(tmp_path, ROOT)
    done = subprocess.run(
        ["bash", "-c", f"{command} --silent --old-file env VENV={folder}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        *("-m", "dbksvd.command.main", "explain", "--config", "config.yaml", "--", text)
    ]
