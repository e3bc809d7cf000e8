"""What README shows runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workflow.experiment import Experiment

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
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    for section, changes in yaml.safe_load(block).items():
        config[section] |= changes
    del config["model"]["package"], config["model"]["sha256"]
    assert Experiment(config).sites == ["layer8", "synthetic"]


@pytest.mark.parametrize("target", re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE))
def test_make_targets_exist(target: str):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)h][^)]*)\)", README))
def test_links_lead_somewhere(path: str):
    assert (ROOT / path).exists()
