"""What goes wrong is named in one line, leaves nothing half-written, and a rerun goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import CONFIG, SMALL, copy_project, run_fork, run_snakemake

from benchmarks.kills import Experiment
from benchmarks.same_results import compare_results, digest_results

SHARDS = Path("results/tiny/layer4/shards")
SEAL = Path("results/tiny/layer4/dictionaries/dbksvd/m64-k4-s0/fit.json")


def write_config(folder: Path, change: Any) -> str:
    config = yaml.safe_load((folder / CONFIG).read_text())
    change(config)
    (folder / "changed.yaml").write_text(yaml.safe_dump(config))
    return "changed.yaml"


def find_error(output: str) -> str:
    """Return the one line that says what was wrong; a traceback is a failure."""
    assert "Traceback" not in output, output
    lines = [line.strip() for line in output.splitlines() if line.strip().startswith("error: ")]
    assert len(lines) == 1, output
    return lines[0]


def find_temporary_files(folder: Path) -> list[Path]:
    return [
        path for path in (folder / "results").rglob(".*") if not path.name.startswith(".snakemake")
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(colour="red"), "error: config: colour: unknown key"),
        (lambda c: c["fits"][0].update(k=[65]), "error: config: fits[0].k: expected at most n_atoms = 64, got 65"),
        (lambda c: c["fits"][0].update(methods=["dbksdv"]), "error: config: fits[0].methods: expected a name from methods, did you mean 'dbksvd'?"),
        (lambda c: c["methods"]["dbksvd"].update(algorithm="magic"), "error: config: methods.dbksvd.algorithm: expected one of"),
        (lambda c: c["shards"].update(rows_per_shard=-1), "error: config: shards.rows_per_shard: expected at least 1, got -1"),
    ],
)  # fmt: skip
def test_wrong_config_ends_before_anything_runs(tmp_path: Path, change: Any, message: str):
    folder = copy_project(tmp_path / "project")
    status, output = run_fork(folder, "--cores", "1", config=write_config(folder, change))
    assert status != 0
    assert find_error(output).startswith(message)
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("change", "target", "message"),
    [
        (
            lambda c: c["activations"].update(layers=[9]),
            "results/tiny/layer9/parts/part-0.h5",
            "error: config: activations.layers[0]: expected at most 6, the blocks of ",
        ),
        (
            lambda c: c["text"]["sources"].append({"kind": "file", "path": "no such.txt"}),
            "results/tiny/text/manifest.json",
            "error: ",
        ),
        (
            lambda c: c["text"].update(sources=[{"kind": "file", "path": "empty.txt"}]),
            "results/tiny/text/manifest.json",
            "error: config: text.sources: expected text for 3500 tokens ",
        ),
        (
            lambda c: c["model"].update(sha256="0" * 64),
            "results/tiny/layer4/parts/part-0.h5",
            "error: ",
        ),
        (
            lambda c: c["activations"].update(n_train_tokens=3_000_000),
            "results/tiny/layer4/parts/part-0.h5",
            "error: config: text.max_documents: expected at least 62511 for 3000500 tokens ",
        ),
        (
            # as many as the documents could have, if each filled its context and none was held out
            lambda c: c["activations"].update(n_train_tokens=28_000),
            "results/tiny/layer4/parts/part-0.h5",
            "error: text: expected 14000 ",
        ),
    ],
    ids=["layer", "missing text", "empty text", "wrong hash", "few documents", "too little text"],
)  # fmt: skip
def test_bad_input_is_named_and_leaves_nothing(
    tmp_path: Path, change: Any, target: str, message: str
):
    folder = copy_project(tmp_path / "project")
    (folder / "empty.txt").write_text("\n\n")
    done = run_snakemake(folder, "--cores", "1", target, config=write_config(folder, change))
    assert done.returncode != 0
    assert find_error(done.stdout + done.stderr).startswith(message)
    assert not (folder / target).exists()
    assert not find_temporary_files(folder)


TEXT = "results/tiny/text/manifest.json"
SMALL_RESULTS = Path("results/small")
SMALL_SHARDS = SMALL_RESULTS / "synthetic/shards"
SMALL_FIT = SMALL_RESULTS / "synthetic/dictionaries/dbksvd/m32-k4-s0"


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def edit_mean(manifest: Path) -> None:
    content = json.loads(manifest.read_text())
    content["mean"][0] += 1e-3
    manifest.write_text(json.dumps(content))


# tests/activations/test_shards.py damages every shard in every way, without Snakemake.
@pytest.mark.parametrize(
    ("damage", "remade", "named"),
    [
        (
            lambda folder: swap(*(folder / SMALL_SHARDS / f"train-0000{i}.h5" for i in (0, 1))),
            SMALL_FIT / "fit.json",
            SMALL_SHARDS / "train-00000.h5",
        ),
        (
            lambda folder: edit_mean(folder / SMALL_SHARDS / "manifest.json"),
            SMALL_FIT / "fit.json",
            SMALL_SHARDS / "manifest.json",
        ),
        (
            lambda folder: os.truncate(folder / SMALL_FIT / "sae_weights.safetensors", 1000),
            SMALL_RESULTS / "synthetic/ground_truth/dbksvd/m32-k4-s0/scores.json",
            SMALL_FIT / "sae_weights.safetensors",
        ),
    ],
    ids=["shards swapped", "manifest edited", "dictionary cut"],
)
def test_damage_is_named_and_healed_by_a_rerun(
    small_project: Path, damage: Any, remade: Path, named: Path
):
    before = digest_results(small_project / SMALL_RESULTS)
    damage(small_project)
    (small_project / remade).unlink()
    command = ("--cores", "1", "--", str(remade))
    done = run_snakemake(small_project, *command, config=SMALL)
    assert done.returncode != 0
    error = find_error(done.stdout + done.stderr)
    assert error.startswith(f"error: {named}: expected ")
    assert "sha256" in error
    assert "run again to make it anew" in error
    assert not (small_project / remade).exists()
    assert not find_temporary_files(small_project)

    done = run_snakemake(small_project, *command, config=SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert compare_results(before, digest_results(small_project / SMALL_RESULTS)) == []


def start_and_wait_for(experiment: Experiment, rule: str) -> subprocess.Popen[bytes]:
    """Return when Snakemake says that a job of the rule begins: what it needs is complete."""
    process, log = experiment.start()
    deadline = time.monotonic() + 300
    while not re.search(f"(rule|checkpoint) {rule}:", log.read_text()):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return process


def test_two_runs_at_once_and_a_lock_left_behind(tmp_path: Path):
    folder = copy_project(tmp_path / "project")
    experiment = Experiment(folder, CONFIG, [TEXT])

    def refuse() -> None:
        done = run_snakemake(folder, "--cores", "1", "--", TEXT)
        output = done.stdout + done.stderr
        assert done.returncode != 0
        assert "Traceback" not in output
        assert "Directory cannot be locked" in output
        assert "--unlock" in output

    first = start_and_wait_for(experiment, "prepare_text")
    first.send_signal(signal.SIGSTOP)
    refuse()
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0  # was not disturbed
    assert (folder / TEXT).is_file()

    (folder / TEXT).unlink()
    killed = start_and_wait_for(experiment, "prepare_text")
    killed.kill()
    killed.wait()
    refuse()
    assert run_snakemake(folder, "--unlock").returncode == 0
    experiment.finish()
    assert (folder / TEXT).is_file()


@pytest.fixture
def mount(tmp_path: Path):
    """Return a function that mounts something for the time of a test."""
    mounted: list[Path] = []

    def mount_at(folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", *options, str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("no mount command")
        if done.returncode:
            pytest.skip(f"may not mount: {done.stderr.strip()}")
        if folder not in mounted:
            mounted.append(folder)

    yield mount_at
    for folder in reversed(mounted):
        subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_named_and_a_rerun_with_room_goes_on(tmp_path: Path, mount: Any):
    folder = copy_project(tmp_path / "project")
    mount(folder / "results", "-t", "tmpfs", "-o", "size=64k", "tmpfs")
    done = run_snakemake(folder, "--cores", "1", "--", TEXT)
    assert done.returncode != 0
    error = find_error(done.stdout + done.stderr)
    assert error == "error: [Errno 28] No space left on device"
    assert not find_temporary_files(folder)

    mount(folder / "results", "-o", "remount,size=64m")
    done = run_snakemake(folder, "--cores", "1", "--", TEXT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / TEXT).is_file()


def test_results_that_cannot_be_written(tmp_path: Path, mount: Any):
    folder = copy_project(tmp_path / "project")
    shutil.copy(Path(__file__).with_name(SMALL), folder)
    mount(folder / "results", "-t", "tmpfs", "-o", "ro", "tmpfs")
    done = run_snakemake(folder, "--cores", "1", config=SMALL)
    assert done.returncode != 0
    error = find_error(done.stdout + done.stderr)
    assert error.startswith("error: results/small: expected a folder to write to, got: Read-only")
    assert list((folder / "results").iterdir()) == []
    assert not (folder / ".snakemake" / "locks").exists() or not list(
        (folder / ".snakemake" / "locks").iterdir()
    )


def test_hostile_names_stay_names(tmp_path: Path):
    """In the folder of the project, in paths and in data sets: nothing of them is executed."""
    folder = copy_project(tmp_path / 'it\'s "a" $(touch pwned); `touch pwned`')
    name = "x; touch pwned; $(touch pwned) `touch pwned` '\" #.txt"
    (folder / name).write_text("\n".join(f"Text number {i} is here." for i in range(40)))

    def change(config: Any) -> None:
        config["text"]["sources"] = [{"kind": "file", "path": name}]
        config["text"].update(max_documents=30)
        config["activations"].update(n_train_tokens=400, n_heldout_tokens=40)

    done = run_snakemake(folder, "--cores", "1", "--", TEXT, config=write_config(folder, change))
    assert done.returncode == 0, done.stdout + done.stderr
    documents = (folder / "results/tiny/text/documents.jsonl").read_text().splitlines()
    assert len(documents) == 30

    def change_data_set(config: Any) -> None:
        config["text"]["sources"][0]["datasets"] = ["x; touch pwned"]

    config = write_config(folder, change_data_set)
    done = run_snakemake(folder, "--cores", "1", "--", TEXT, config=config)
    assert done.returncode != 0
    assert "x; touch pwned" in find_error(done.stdout + done.stderr)
    assert not list(tmp_path.rglob("pwned*"))


@pytest.mark.parametrize(
    ("arguments", "config", "message"),
    [
        (["--cores", "1"], "experiments/tinny.yaml", "No such file or directory: 'experiments/tinny.yaml'"),
        (["--cores", "1", "--", "results/small/scores.cvs"], SMALL, "results/small/scores.cvs"),
        (["--cores", "0"], SMALL, "error: --cores: expected at least 1, got 0"),
    ],
    ids=["config", "target", "cores"],
)  # fmt: skip
def test_wrong_arguments_are_named(
    small_project: Path, arguments: list[str], config: str, message: str
):
    (small_project / SMALL_RESULTS / "table.csv").unlink()
    status, output = run_fork(small_project, *arguments, config=config)
    assert status != 0
    assert message in output
    assert not (small_project / SMALL_RESULTS / "table.csv").exists()


def test_interrupted_run_goes_on_from_what_was_complete(tmp_path: Path):
    folder = copy_project(tmp_path / "project")
    seals = [str(SEAL), str(SEAL).replace("/dbksvd/", "/dbksvd-signed/")]
    experiment = Experiment(folder, CONFIG, seals, cores=1, own_session=True)
    process = start_and_wait_for(experiment, "fit_dictionary")
    manifest = folder / SHARDS / "manifest.json"
    time.sleep(1.0)  # the fit has begun
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    assert process.wait(timeout=120) != 0
    assert not all((folder / seal).exists() for seal in seals)
    assert not find_temporary_files(folder)
    before = json.loads(manifest.read_text()), manifest.stat().st_mtime_ns

    done = run_snakemake(folder, "--cores", "2", *seals)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (json.loads(manifest.read_text()), manifest.stat().st_mtime_ns) == before
    assert "rule extract_activations" not in done.stdout + done.stderr
    assert "rule fit_dictionary" in done.stdout + done.stderr
