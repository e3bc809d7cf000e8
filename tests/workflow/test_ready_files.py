"""Ready activations go through every stage that needs neither text nor model."""

import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from running import CONFIG, copy_project, plan, run_snakemake


def write_config(folder: Path, **changes: object) -> str:
    config = yaml.safe_load((folder / CONFIG).read_text())
    del config["text"], config["model"]
    config["experiment"] = "ready"
    config["activations"] = {
        "source": "files",
        "files": {"path": "ready.npy"},
        "n_train_tokens": 3000,
        "n_heldout_tokens": 500,
        "slices": 2,
    }
    config["evaluation"] = {"seed": 0, "evals": {}}
    config |= changes
    (folder / "ready.yaml").write_text(yaml.safe_dump(config))
    return "ready.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project")


def test_from_array_to_table(folder: Path):
    random = np.random.default_rng(0)
    atoms = random.normal(size=(64, 32))
    codes = random.random((3500, 64)) * (random.random((3500, 64)) < 0.05)
    np.save(folder / "ready.npy", (codes @ atoms + 1).astype(np.float32))
    config = write_config(folder)
    done = run_snakemake(folder, "--cores", "2", config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    results = folder / "results/ready"
    scores = pd.read_csv(results / "scores.csv")
    chosen = scores[(scores["eval"] == "heldout") & (scores["metric"] == "explained_variance")]
    assert sorted(chosen["method"].unique()) == ["dbksvd", "dbksvd-signed", "topk-sae"]
    assert chosen.loc[chosen["method"] == "dbksvd-signed", "value"].item() > 0.7
    assert "probing" not in (results / "table.md").read_text()
    assert sorted(path.name for path in (results / "figures").glob("*.png")) == [
        "atom_usage.png",
        "convergence.png",
        "cost.png",
        "description_length.png",
        "differences.png",
        "sparsity.png",
        "variance_explained.png",
    ]
    assert plan(folder, config) == {}

    (folder / "ready.npy").touch()
    assert plan(folder, config) == {}
    times = (folder / "ready.npy").stat()
    np.save(folder / "ready.npy", (codes @ atoms + 2).astype(np.float32))
    os.utime(folder / "ready.npy", ns=(times.st_atime_ns, times.st_mtime_ns))
    left = plan(folder, config)
    assert left["extract_activations"] == 2
    assert left["fit_dictionary"] == 4


def test_nan_in_the_array_is_named(folder: Path):
    x = np.ones((3500, 8), np.float32)
    x[7, 3] = np.nan
    np.save(folder / "ready.npy", x)
    done = run_snakemake(
        folder, "--cores", "1", "results/ready/files/parts/part-0.h5", config=write_config(folder)
    )
    assert done.returncode != 0
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "error: " in line]
    assert len(errors) == 1
    assert "ready.npy" in errors[0]
    assert "row" in errors[0]
    assert not (folder / "results/ready/files/parts/part-0.h5").exists()


def test_what_lies_behind_an_hdf5_file_counts(folder: Path):
    x = np.random.default_rng(0).normal(size=(3500, 8)).astype(np.float32)
    for number, rows in enumerate(np.split(x, 2)):
        with h5py.File(folder / f"source-{number}.h5", "w") as file:
            file["rows"] = rows
    layout = h5py.VirtualLayout(x.shape, "f4")
    for number in range(2):
        source = h5py.VirtualSource(f"source-{number}.h5", "rows", shape=(1750, 8))
        layout[number * 1750 : (number + 1) * 1750] = source
    with h5py.File(folder / "ready.h5", "w") as file:
        file.create_virtual_dataset("activations", layout)
    config = write_config(folder)
    settings = yaml.safe_load((folder / config).read_text())
    settings["activations"]["files"]["path"] = "ready.h5"
    (folder / config).write_text(yaml.safe_dump(settings))
    targets = [f"results/ready/files/parts/part-{number}.h5" for number in range(2)]
    done = run_snakemake(folder, "--cores", "1", *targets, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "extract_activations" not in plan(folder, config)
    with h5py.File(folder / "source-1.h5", "r+") as file:
        file["rows"][1749, 7] += 1
    assert plan(folder, config)["extract_activations"] == 2
    (folder / "source-1.h5").unlink()
    done = run_snakemake(folder, "--cores", "1", *targets, config=config)
    assert done.returncode != 0
    assert "source-1.h5, no such file" in done.stdout + done.stderr
