"""What goes wrong is named in one line, leaves nothing half-written, and a rerun goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import CONFIG, copy_project, make_environment, run_snakemake

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
    done = run_snakemake(folder, "--cores", "1", config=write_config(folder, change))
    assert done.returncode != 0
    assert find_error(done.stdout + done.stderr).startswith(message)
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("change", "target", "message"),
    [
        (
            lambda c: c["activations"].update(layers=[9]),
            "results/tiny/layer9/parts/part-0.h5",
            "error: layer: expected 0 to 6, got 9",
        ),
        (
            lambda c: c["text"]["sources"].append({"kind": "file", "path": "no such.txt"}),
            "results/tiny/text/manifest.json",
            "error: ",
        ),
        (
            lambda c: c["text"].update(sources=[{"kind": "file", "path": "empty.txt"}]),
            "results/tiny/text/manifest.json",
            "error: text: expected at least 1 train",
        ),
        (
            lambda c: c["model"].update(sha256="0" * 64),
            "results/tiny/layer4/parts/part-0.h5",
            "error: ",
        ),
        (
            lambda c: c["activations"].update(n_train_tokens=3_000_000),
            "results/tiny/layer4/parts/part-0.h5",
            "error: text: expected 1500000 ",
        ),
    ],
    ids=["layer", "missing text", "empty text", "wrong hash", "too little text"],
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


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_byte, "sha256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "train-00001.h5"),
        (Path.unlink, "train-00001.h5"),
    ],
    ids=["byte flipped", "truncated", "missing"],
)
def test_damaged_shard_stops_the_fit(project: Path, damage: Any, message: str):
    before = (project / SHARDS / "train-00001.h5").read_bytes()
    damage(project / SHARDS / "train-00001.h5")
    (project / SEAL).unlink()
    done = run_snakemake(project, "--cores", "1", str(SEAL))
    assert done.returncode != 0
    error = find_error(done.stdout + done.stderr)
    assert "train-00001.h5" in error
    assert message in error
    assert not (project / SEAL).exists()
    assert not find_temporary_files(project)
    # What the message tells to do heals it, with the same bytes as before.
    shutil.rmtree(project / SHARDS)
    done = run_snakemake(project, "--cores", "2", str(SEAL))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / SHARDS / "train-00001.h5").read_bytes() == before


def test_interrupted_run_goes_on_from_what_was_complete(tmp_path: Path):
    folder = copy_project(tmp_path / "project")
    seals = [str(SEAL), str(SEAL).replace("/dbksvd/", "/dbksvd-signed/")]
    command = [sys.executable, "-m", "snakemake", "--configfile", CONFIG, "--cores", "1", *seals]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=make_environment(),
    )
    manifest = folder / SHARDS / "manifest.json"
    deadline = time.monotonic() + 300
    while not manifest.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)  # fits have begun
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not all((folder / seal).exists() for seal in seals)
    assert not find_temporary_files(folder)
    before = json.loads(manifest.read_text()), manifest.stat().st_mtime_ns

    done = run_snakemake(folder, "--cores", "2", *seals)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (json.loads(manifest.read_text()), manifest.stat().st_mtime_ns) == before
    assert "rule extract_activations" not in done.stdout + done.stderr
    assert "rule fit_dictionary" in done.stdout + done.stderr
