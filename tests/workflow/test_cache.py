"""Activations and shards are taken over from another working copy, and never the wrong ones."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import CONFIG, ROOT, copy_project, plan, run_fork, run_forks, run_snakemake

from dbksvd.base.settings import parse
from workflow.caching import can_share_activations, list_shards
from workflow.config import ExperimentConfig

MANIFEST = "results/tiny/layer4/shards/manifest.json"
SEAL = "results/tiny/layer4/dictionaries/topk-sae/m64-k4-s0/fit.json"
FILES = ("parts/part-0.h5", "parts/part-1.h5", "shards/train-00000.h5", "shards/train-00002.h5", "shards/heldout-00000.h5")  # fmt: skip
TINY = yaml.safe_load((ROOT / CONFIG).read_text()) | {"pages": None}


def run_with_cache(folder: Path, cache: Path, target: str) -> str:
    environment = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)}
    arguments = ("--cores", "2", "--cache", "--", target)
    done = run_snakemake(folder, *arguments, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache that one working copy has filled."""
    cache = tmp_path_factory.mktemp("cache")
    folder = copy_project(tmp_path_factory.mktemp("first") / "project")
    run_with_cache(folder, cache, MANIFEST)
    assert (folder / "results/tiny/logs/layer4/shard_activations.log").stat().st_size
    assert not (folder / "results/tiny/benchmarks/layer4").exists()
    return cache


@pytest.fixture(scope="module")
def second(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another working copy, after a fit on shards out of the cache."""
    folder = copy_project(tmp_path_factory.mktemp("second") / "another project")
    run_with_cache(folder, cache, SEAL)
    return folder


@pytest.mark.slow
def test_second_copy_runs_neither_extraction_nor_shards(second: Path):
    assert (second / SEAL).exists()
    # A job that took its results from the cache has an empty log.
    logs = [path for path in (second / "results/tiny/logs").rglob("*.log") if path.stat().st_size]
    assert {path.name for path in logs} == {"prepare_text.log", "topk-sae-m64-k4-s0.log"}


@pytest.mark.slow
def test_bytes_are_those_of_a_run_without_a_cache(second: Path, finished_run: Path):
    for name in FILES:
        ours = second / "results/tiny/layer4" / name
        assert ours.is_symlink(), name
        assert ours.read_bytes() == (finished_run / "results/tiny/layer4" / name).read_bytes(), name
    assert (second / MANIFEST).read_bytes() == (finished_run / MANIFEST).read_bytes()


@pytest.mark.slow
def test_without_the_flag_nothing_of_it_runs_again(second: Path):
    planned = plan(second)
    assert planned["fit_dictionary"] == 3
    assert not {"prepare_text", "extract_activations", "shard_activations"} & set(planned)


CHANGES: dict[str, tuple[Callable[[Any], Any], dict[str, int]]] = {
    # {rule: jobs out of the cache}; the others are run
    "nothing": (dict, {"extract_activations": 2, "shard_activations": 1}),
    "name": (lambda c: c.update(experiment="b"), {"extract_activations": 2, "shard_activations": 1}),
    "methods": (lambda c: c["methods"]["dbksvd"].update(max_iter=9), {"extract_activations": 2, "shard_activations": 1}),
    "shards": (lambda c: c["shards"].update(seed=1), {"extract_activations": 2}),
    "masked": (lambda c: c["shards"].update(outlier_norm_multiple=5), {"extract_activations": 2}),
    "layer": (lambda c: c["activations"].update(layers=[3]), {}),
    "slices": (lambda c: c["activations"].update(slices=3), {}),
    "tokens": (lambda c: c["activations"].update(n_train_tokens=3001), {}),
    "text": (lambda c: c["text"].update(seed=1), {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def dry_runs(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Output of ``snakemake --dry-run --cache`` in a fresh copy after each change of the config."""
    folder = copy_project(tmp_path_factory.mktemp("changed") / "project")
    runs = []
    for name, (change, _) in CHANGES.items():
        config = copy.deepcopy(TINY)
        change(config)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
        runs.append(["--dry-run", "--cache", "--configfile", f"{name}.yaml"])
    environment = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)}
    outputs = [output for _, output in run_forks(folder, *runs, environment=environment)]
    return dict(zip(CHANGES, outputs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_only_equal_results_are_taken(dry_runs: dict[str, str], name: str):
    output = dry_runs[name]
    assert "This was a dry-run" in output, output
    found = dict.fromkeys(("extract_activations", "shard_activations"), 0)
    for line in output.splitlines():
        if "will be obtained from" in line:
            found["shard_activations" if "/shards/" in line else "extract_activations"] += 1
    assert {rule: count for rule, count in found.items() if count} == CHANGES[name][1]


SYNTHETIC = yaml.safe_load((ROOT / "experiments/toy-kron.yaml").read_text())["activations"][
    "synthetic"
]


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        (dict, True),
        (lambda c: c["text"]["sources"].append({"kind": "file", "path": "notes.txt"}), False),
        (lambda c: c["text"]["sources"].append({"kind": "hub", "name": "a/b", "split": "train"}), False),
        (lambda c: c["text"]["sources"].append({"kind": "hub", "name": "a/b", "split": "train", "revision": "0f" * 20}), True),
        (lambda c: c.update(model={"name": "a/b", "revision": "main"}), False),
        (lambda c: c.update(model={"name": "a/b", "revision": "0f" * 20}), True),
        (lambda c: c.update(model={"name": "folder", "sha256": "0f" * 32}), True),
        (lambda c: c.update(model={"gguf": "a.gguf"}), False),
        (lambda c: c.update(model={"gguf": "a.gguf", "sha256": "0f" * 32}), True),
        (lambda c: c.update(activations={"source": "files", "files": {"path": "a.npy"}}), False),
        (lambda c: c.update(activations={"source": "synthetic", "synthetic": SYNTHETIC}), True),
    ],
)  # fmt: skip
def test_what_the_config_does_not_fix_is_not_shared(change: Any, shared: bool):
    config = copy.deepcopy(TINY)
    change(config)
    assert can_share_activations(parse(ExperimentConfig, config)) is shared


def test_cache_is_refused_where_it_would_not_be_safe(tmp_path: Path):
    config = copy.deepcopy(TINY)
    config["text"]["sources"].append({"kind": "file", "path": "notes.txt"})
    (tmp_path / "notes.txt").write_text("a note\n")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ("-n", "--snakefile", str(ROOT / "Snakefile"), "--cache")
    environment = {"SNAKEMAKE_OUTPUT_CACHE": os.devnull}
    status, output = run_fork(tmp_path, *arguments, config="config.yaml", environment=environment)
    assert status != 0
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, output
    assert lines[0].startswith("error: --cache: expected all that activations are made from")


def test_names_of_shards_are_known_before(finished_run: Path):
    folder = finished_run / Path(MANIFEST).parent
    assert sorted(list_shards(parse(ExperimentConfig, TINY))) == sorted(
        path.stem for path in folder.glob("*.h5")
    )
