"""Every shipped config can be planned with every shipped profile; what a profile asks for."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from running import CONFIG, ROOT, copy_project, run_fork, run_forks
from safetensors.numpy import save_file

from workflow.gpus import find_problem, names_gpus

PROFILES = sorted(path.name for path in (ROOT / "profiles").iterdir())
CONFIGS = ["config.yaml", *(f"experiments/{path.name}" for path in sorted((ROOT / "experiments").glob("*.yaml")))]  # fmt: skip
PAIRS = [(config, profile) for config in CONFIGS for profile in PROFILES]
SECOND_ATTEMPT = (CONFIG, "slurm", "--attempt", "2")
Plan = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], tuple[int, str]]:
    """Exit status and output of all dry runs, from one process that forks for each of them."""
    folder = copy_project(tmp_path_factory.mktemp("profiles") / "project")
    add_local_files(folder)
    runs = [*PAIRS, SECOND_ATTEMPT]
    lists = [
        ["--dry-run", "--configfile", config, "--workflow-profile", profile, *others]
        for config, profile, *others in runs
    ]
    return dict(zip(runs, run_forks(folder, *lists), strict=True))


def add_local_files(folder: Path) -> None:
    """Put there what configs name that a user is to bring: images, and a model."""
    (folder / "images").mkdir()
    for name in ("a.png", "b.png"):
        (folder / "images" / name).write_bytes(b"not looked at")
    model = folder / "path/to/model"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"hidden_size": 768, "num_hidden_layers": 12}')
    (model / "tokenizer.json").write_text("{}")
    save_file({"weight": np.zeros(1)}, model / "model.safetensors")


def read_resources(output: str) -> Plan:
    """Return {rule: {resource: value}} of a dry run; all jobs of a rule ask for the same."""
    jobs = re.findall(
        r"^(?:local)?(?:rule|checkpoint) (\w+):\n(?:    .*\n)*?    resources: (.*)$",
        output,
        re.MULTILINE,
    )
    assert len(jobs) == count_jobs(output)
    return {rule: dict(pair.split("=", 1) for pair in line.split(", ")) for rule, line in jobs}


def count_jobs(output: str) -> int:
    return int(re.findall(r"^total +(\d+)$", output, re.MULTILINE)[0])


def list_gpu_rules() -> set[str]:
    """Return the rules that can use a GPU, read from the rules themselves."""
    found = set()
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for block in re.split(r"^(?:rule|checkpoint) ", path.read_text(), flags=re.MULTILINE)[1:]:
            if re.search(r"^ +gpu=", block, re.MULTILINE):
                found.add(block.split(":")[0])
    return found


def read_profile(name: str) -> dict:
    return yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_config_can_be_planned_with_every_profile(outputs, config: str, profile: str):
    status, output = outputs[config, profile]
    assert status == 0, output
    assert count_jobs(output) == count_jobs(outputs[config, "default"][1]) > 10


def test_slurm_asks_for_a_gpu_in_every_rule_that_can_use_one(outputs):
    rules = list_gpu_rules()
    assert rules >= {"extract_activations", "fit_dictionary", "evaluate_dictionary"}
    assert set(read_profile("slurm")["set-resources"]) == rules
    seen = set()
    for config in CONFIGS:
        for rule, resources in read_resources(outputs[config, "slurm"][1]).items():
            assert resources.get("gpu", "0") == str(int(rule in rules)), (config, rule)
            seen.add(rule)
    assert rules - seen <= {"extract_image_activations"}


def test_memory_and_time_grow_with_the_attempt(outputs):
    status, output = outputs[SECOND_ATTEMPT]
    assert status == 0, output
    first, second = read_resources(outputs[CONFIG, "slurm"][1]), read_resources(output)
    assert set(first) == set(second) >= list_gpu_rules() & set(first)
    # Tables and figures are made in seconds, in a gigabyte.
    for rule in [rule for rule in first if rule != "all" and int(first[rule]["mem_mb"]) > 1000]:
        for name in ("mem_mb", "runtime"):
            assert int(second[rule][name]) == 2 * int(first[rule][name]), (rule, name)


def test_retries_stand_in_the_profile_and_not_in_a_rule():
    """A rule's own ``retries`` would run again inside the allocation that was too small."""
    assert read_profile("slurm")["retries"] >= 1
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        assert not re.search(r"^ +retries:", path.read_text(), re.MULTILINE), path.name


def test_every_job_that_asks_for_a_gpu_claims_one():
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        text = path.read_text()
        assert text.count("gpu=GPUS") == text.count("on_gpus {resources.gpu}"), path.name


def test_slurm_profile_says_where_there_is_no_slurm(tmp_path: Path):
    for program in ("bash", "which"):  # what Snakemake itself calls
        (tmp_path / program).symlink_to(shutil.which(program))
    folder = copy_project(tmp_path / "project")
    environment = {"PATH": str(tmp_path)}
    status, output = run_fork(folder, "--workflow-profile", "slurm", environment=environment)
    assert status == 1
    assert "error: --executor slurm: expected sbatch on PATH" in output
    assert "Traceback" not in output


def test_gpu_profile_gives_a_gpu_to_the_rules_that_slurm_gives_one():
    shared = [read_profile(name)["set-resources"] for name in ("gpu", "slurm")]
    assert shared[0] == shared[1]


def test_gpu_profile_ends_where_there_is_no_gpu(tmp_path: Path):
    """Else its jobs would compute on the CPU, and only their logs say so."""
    folder = copy_project(tmp_path / "project")
    environment = {"CUDA_VISIBLE_DEVICES": ""}
    run = (folder, "--workflow-profile", "gpu")
    status, output = run_fork(*run, environment=environment)
    assert status == 1
    assert "error: --profile: expected a GPU for the jobs that the profile gives one" in output
    assert "Traceback" not in output
    assert not list((folder / "results").glob("*/text"))


@pytest.mark.parametrize(
    ("gpus", "is_named", "is_local", "torch", "expected"),
    [
        ("", True, True, "2.13.0", "error: --profile: expected a GPU for"),
        ("0", True, True, "2.13.0+cpu", "error: --profile: expected a CUDA build of torch"),
        ("0", True, True, "2.13.0", None),
        ("0", True, True, None, None),
        ("0", False, True, "2.13.0+cpu", "note: jobs are given a GPU that torch 2.13.0+cpu"),
        ("", True, False, "2.13.0+cpu", "note: jobs are given a GPU that torch 2.13.0+cpu"),
        ("", True, False, "2.13.0+cu130", None),
        ("", False, True, "2.13.0", None),
    ],
)
def test_jobs_that_would_not_find_their_gpu_are_told_of(
    gpus, is_named, is_local, torch, expected, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    found = find_problem(is_named=is_named, is_local=is_local, torch=torch)
    assert (found is None) == (expected is None)
    assert found is None or found.startswith(expected)
    assert names_gpus([{"mem_mb": 1}, {"gpu": 1}])
    assert not names_gpus([{"mem_mb": 1}])


@pytest.mark.parametrize("profile", ["default", "gpu"])
def test_one_machine_runs_gpu_jobs_one_at_a_time(profile: str):
    assert read_profile(profile)["resources"]["gpu"] == 1
