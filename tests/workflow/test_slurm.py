"""The tiny experiment end to end through a real Slurm with two emulated nodes."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from emulated_slurm import NODE_MB, Job, list_jobs, run_through_slurm, write_profile
from running import copy_project, plan
from safetensors.torch import load_file

FAILING = "shard_activations"
# Two processes on each of two nodes. mpi: the job's own srun starts them, not Snakemake's.
TWO_NODES = {"nodes": 2, "ranks": 2, "tasks": 2, "mpi": "srun", "gpu": 4}
TOO_LITTLE, ENOUGH = 60, 1500  # MB; Slurm ends a job that takes more than it asked for
# Two slices cannot share a node, and each finds room beside both jobs of prepare_evaluation.
SLICE_MB = NODE_MB // 2 + 1000


@pytest.fixture(scope="module")
def folder(slurm_cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder (its name has a space) in which the tiny experiment has run through Slurm."""
    folder = copy_project(tmp_path_factory.mktemp("cluster") / "a project")
    memory = f"{TOO_LITTLE} if attempt == 1 else {ENOUGH}"
    slices = {"mem_mb": SLICE_MB}
    write_profile(folder, extract_activations=slices, **{FAILING: {"mem_mb": memory}})
    run_through_slurm(folder)
    return folder


@pytest.fixture(scope="module")
def jobs(folder: Path) -> list[Job]:
    return list_jobs(folder)


@pytest.mark.slow
def test_every_job_went_through_slurm(folder: Path, jobs: list[Job]):
    submitted = {job.rule for job in jobs}
    assert submitted >= {"prepare_text", "extract_activations", "fit_dictionary", "draw_figure"}
    assert {job.state for job in jobs if job.rule != FAILING} == {"COMPLETED"}
    scores = pd.read_csv(folder / "results/tiny/scores.csv")
    assert set(scores["method"]) == {"dbksvd", "dbksvd-signed", "topk-sae"}


@pytest.mark.slow
def test_slices_were_jobs_of_their_own_on_both_nodes(jobs: list[Job]):
    slices = [job for job in jobs if job.rule == "extract_activations"]
    assert sorted(job.wildcards for job in slices) == ["layer4_0", "layer4_1"]
    assert sorted(job.nodes for job in slices) == ["n1", "n2"]


@pytest.mark.slow
def test_fits_were_given_a_gpu(jobs: list[Job]):
    fits = [job for job in jobs if job.rule == "fit_dictionary"]
    assert [job.gpus for job in fits] == [1, 1, 1, 1]
    assert {job.gpus for job in jobs if job.rule in ("prepare_text", FAILING)} == {0}


@pytest.mark.slow
def test_job_that_took_too_much_memory_was_given_more(jobs: list[Job]):
    first, second = (job for job in jobs if job.rule == FAILING)
    assert (first.memory_mb, second.memory_mb) == (TOO_LITTLE, ENOUGH)
    assert "memory limit" in first.log.read_text()
    assert (first.state, second.state) == ("FAILED", "COMPLETED")


@pytest.mark.slow
def test_nothing_is_left_to_do(folder: Path):
    assert plan(folder) == {}
    waiting = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True)
    assert waiting.stdout == ""


@pytest.mark.slow
def test_fit_on_two_nodes_finds_the_same_dictionary(folder: Path):
    fit = folder / "results/tiny/layer4/dictionaries/dbksvd/m64-k8-s0"
    alone = load_file(fit / "sae_weights.safetensors")["W_dec"]
    shutil.rmtree(fit)
    write_profile(folder, fit_dictionary=TWO_NODES)
    run_through_slurm(folder, "--", str((fit / "fit.json").relative_to(folder)))
    job = list_jobs(folder)[-1]
    assert (job.rule, job.state, job.nodes) == ("fit_dictionary", "COMPLETED", "n[1-2]")
    together = load_file(fit / "sae_weights.safetensors")["W_dec"]
    assert float((together - alone).norm() / alone.norm()) < 1e-5
