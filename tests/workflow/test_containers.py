"""Jobs run in one image under --sdm apptainer, and the image is described as the lock has it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from running import CONFIG, ROOT, copy_project, make_environment, run_snakemake

from workflow.containers import bind_project, choose_image

CONTAINERFILE = (ROOT / "Containerfile").read_text()
HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.fixture(scope="module")
def steps() -> list[list[str]]:
    """The instructions of the Containerfile as words, lines joined and comments left out."""
    lines = [line for line in CONTAINERFILE.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line.split() for line in joined.splitlines() if line.strip()]


@pytest.mark.skipif(not HADOLINT.is_file(), reason="no hadolint yet: make env")
def test_the_linter_has_nothing_to_say():
    done = subprocess.run(
        [HADOLINT, ROOT / "Containerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_it_is_slim_offline_and_nobodys_root(steps: list[list[str]]):
    bases = [step[1] for step in steps if step[0] == "FROM"]
    assert bases == ["debian:bookworm-slim"] * 2
    last = [step for step in steps[[s[0] for s in steps].index("ENV") :] if step[0] != "ENV"]
    assert ["USER", "1000"] in last
    assert {step[0] for step in last} == {"USER", "WORKDIR", "CMD"}
    (variables,) = (step[1:] for step in steps if step[0] == "ENV")
    assert "HF_HUB_OFFLINE=1" in variables
    assert not re.search(r"https?://|\bADD\b|curl|wget", CONTAINERFILE)


def test_its_packages_are_those_of_the_lock(steps: list[list[str]]):
    """The layer of packages: the lock whole, torch alone with what its wheel asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (interpreter,) = set(re.findall(r"\bpython(3\.\d+)\b(?!-)", CONTAINERFILE))
    assert f">={interpreter}" == project["requires-python"]
    for path in (ROOT / "envs").glob("*.yaml"):  # the Python of every rule's environment
        assert f"python ={interpreter}" in yaml.safe_load(path.read_text())["dependencies"]
    commands = " ".join(" ".join(step) for step in steps if step[0] == "RUN")
    installs = re.findall(r"pip install (.*?)(?= &&| RUN|$)", commands)
    torch, locked, own = installs
    assert "s/" not in torch
    assert "--constraint /build/requirements.lock" in torch
    assert "--no-deps --requirement /build/requirements.lock" in locked
    assert "--no-deps --no-build-isolation /build" in own
    lock = (ROOT / "requirements.lock").read_text()
    assert len(re.findall(r"^torch==\d", lock, re.MULTILINE)) == 1  # what its sed picks
    assert re.search(r"^setuptools==", lock, re.MULTILINE)  # what builds the package


def test_what_it_copies_is_there_and_no_more(steps: list[list[str]], tmp_path: Path):
    assert [step[1] for step in steps if step[0] == "COPY"] == [
        "requirements.lock",
        ".",
        "--from=build",
    ]
    listed = (ROOT / ".containerignore").read_text().splitlines()
    rules = [line for line in listed if line and not line.startswith("#")]
    assert rules[0] == "*"
    kept = [line.removeprefix("!") for line in rules if line.startswith("!")]
    for name in kept:
        assert (ROOT / name).exists(), name
    # what it keeps is enough for a wheel
    for name in kept:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    wheels = tmp_path / "wheels"
    subprocess.run([*pip, "--no-index", "-w", wheels, tmp_path], check=True, capture_output=True)
    assert len(list(wheels.glob("*.whl"))) == 1


def test_an_image_is_asked_for_only_where_it_is_used(tmp_path: Path):
    image = tmp_path / "dbksvd.sif"
    assert choose_image(None, {"conda"}) is None
    assert choose_image(str(image), set()) == str(image)
    assert choose_image("docker://dbksvd", {"apptainer"}) == "docker://dbksvd"
    with pytest.raises(ValueError, match=r"container: expected an image .* got null"):
        choose_image(None, {"apptainer"})
    with pytest.raises(ValueError, match=r"container: expected a file or .*dbksvd\.sif"):
        choose_image(str(image), {"apptainer"})
    image.touch()
    assert choose_image(str(image), {"apptainer"}) == str(image)


def test_the_project_is_bound_once():
    settings = SimpleNamespace(apptainer_args="--nv")
    for _ in range(2):  # a job of a cluster begins with what the run had
        bind_project(settings, Path("/a b/dbksvd"))
    assert settings.apptainer_args == "--nv --bind '/a b/dbksvd'"


@pytest.mark.slow
def test_every_job_is_handed_to_apptainer(tmp_path: Path):
    folder = copy_project(tmp_path / "project")
    config = yaml.safe_load((folder / CONFIG).read_text())
    config["activations"]["slices"] = 1
    config["fits"] = [{"methods": ["dbksvd"], "n_atoms": [16], "k": [2], "seeds": [0]}]
    config["evaluation"]["evals"] = {}
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    log = tmp_path / "asked"
    environment = {
        "APPTAINER_DOUBLE_LOG": str(log),
        "PATH": f"{ROOT}/tests/apptainer_double:{make_environment()['PATH']}",
    }
    arguments = ("--sdm", "apptainer", "--cores", "1")
    refused = run_snakemake(folder, *arguments, config="small.yaml", environment=environment)
    assert "error: config: container: expected an image" in refused.stdout + refused.stderr
    config["container"] = "dbksvd.sif"
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    (folder / "dbksvd.sif").touch()
    target = "results/tiny/layer4/dictionaries/dbksvd/m16-k2-s0/fit.json"
    done = run_snakemake(folder, *arguments, target, config="small.yaml", environment=environment)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert (folder / target).is_file()
    asked = log.read_text().splitlines()
    ran = re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):$", output, re.MULTILINE)
    assert len(asked) == len(ran) > 3
    for line in asked:
        assert f"exec --home {folder}" in line
        assert f"--bind {folder} dbksvd.sif bash -c" in line
