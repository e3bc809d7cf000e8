"""A folder of images goes through every stage; only a change of content runs stages again."""

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from image_helpers import save_dinov2, save_photographs
from PIL import Image
from running import CONFIG, ROOT, copy_project, plan, run_fork, run_snakemake

from dbksvd.base.files import read_json
from dbksvd.base.settings import SettingsError
from workflow.experiment import Experiment


def make_config() -> dict[str, Any]:
    config = yaml.safe_load((ROOT / CONFIG).read_text())
    del config["text"]
    config |= {
        "experiment": "photographs",
        "images": {"folder": "photographs", "heldout_fraction": 0.25, "tile_size": 53},
        "model": {"name": "tiny-dinov2"},
        "activations": {
            "source": "images",
            "layers": [2],
            "image_tokens": "patches",
            "n_train_tokens": 2000,
            "n_heldout_tokens": 400,
            "slices": 2,
            "batch_size": 16,
        },
        "evaluation": {"seed": 0, "evals": {}},
        "pages": None,
    }
    config["methods"] |= {
        "random": {"algorithm": "random", "nonnegative": False},
        "published": {"algorithm": "pretrained", "path": "published"},
    }
    methods = ["dbksvd-signed", "topk-sae", "random", "published"]
    config["fits"] = [{"methods": methods, "n_atoms": [64], "k": [4], "seeds": [0]}]
    return config


def save_sae(folder: Path) -> None:
    """Save a random SAE for the output of the second block, as a published one would be."""
    from sae_lens import TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    torch.manual_seed(0)
    metadata = SAEMetadata(model_name="tiny-dinov2", hook_name="blocks.1.hook_resid_post")
    sae = TopKSAE(TopKSAEConfig(d_in=32, d_sae=64, k=4, metadata=metadata))
    sae.W_dec.data = torch.nn.functional.normalize(torch.randn(64, 32), dim=1)
    sae.W_enc.data = sae.W_dec.data.T.contiguous()
    sae.save_model(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Folder in which the experiment has run to its end."""
    folder = copy_project(tmp_path_factory.mktemp("images") / "project")
    save_photographs(folder / "photographs")
    save_dinov2(folder / "tiny-dinov2", width=32)
    save_sae(folder / "published")
    (folder / "images.yaml").write_text(yaml.safe_dump(make_config()))
    done = run_snakemake(folder, "--cores", "2", config="images.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_from_photographs_to_figures(run: Path):
    results = run / "results/photographs"
    scores = pd.read_csv(results / "scores.csv")
    chosen = scores[(scores["eval"] == "heldout") & (scores["metric"] == "explained_variance")]
    values = chosen.set_index("method")["value"]
    assert sorted(values.index) == ["dbksvd-signed", "published", "random", "topk-sae"]
    assert values["dbksvd-signed"] > values["random"] + 0.1
    seal = read_json(results / "layer2/dictionaries/published/m64-k4-s0/fit.json")
    assert seal["compared"] == ["width", "model", "place"]
    assert seal["fve_heldout"] == pytest.approx(values["published"], abs=1e-3)
    l0 = scores[(scores["method"] == "published") & (scores["metric"] == "l0")]["value"]
    assert l0.tolist() == pytest.approx([seal["l0"]] * len(l0))
    assert sorted(path.name for path in (results / "figures").glob("*.png")) == [
        "atom_usage.png",
        "convergence.png",
        "cost.png",
        "description_length.png",
        "differences.png",
        "variance_explained.png",
    ]
    assert plan(run, "images.yaml") == {}


def edit_in_place(path: Path) -> None:
    """Change the last byte of a file but not its size or its time."""
    times, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_only_content_counts(run: Path, tmp_path: Path):
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    paths = sorted((folder / "photographs").rglob("*.png"))
    for path in paths:
        path.touch()
    (folder / "photographs/notes.txt").write_text("no image")
    assert plan(folder, "images.yaml") == {}
    edit_in_place(folder / "published/sae_weights.safetensors")
    planned = plan(folder, "images.yaml")
    assert planned["fit_dictionary"] == 1
    assert "extract_image_activations" not in planned
    edit_in_place(folder / "tiny-dinov2/model.safetensors")
    planned = plan(folder, "images.yaml")
    assert planned["extract_image_activations"] == 2
    assert "prepare_images" not in planned
    Image.open(paths[0]).rotate(180).save(paths[0])
    planned = plan(folder, "images.yaml")
    assert planned["prepare_images"] == 1
    assert planned["extract_image_activations"] == 2
    assert planned["fit_dictionary"] == 4
    assert "extract_activations" not in planned


def test_unreadable_image_stops_the_run_at_once(run: Path, tmp_path: Path):
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    (folder / "photographs/cut.png").write_bytes(b"\x89PNG")
    done = run_snakemake(folder, "--cores", "1", config="images.yaml")
    assert done.returncode != 0
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "error: " in line]
    assert len(errors) == 1
    assert (
        "images.folder: expected readable images, 1 in photographs are not; the first: "
        in (errors[0])
    )


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("evaluation", {"evals": {"mdl": {"datasets": ["a"], "texts": 1, "context_length": 9, "num_bins": [8], "tokens": 9}}}, r"^evaluation\.evals: expected \{\} for activations\.source: images, since SAEBench gives its models text, got mdl$"),
        ("evaluation", {"evals": {"ground_truth": {}}}, r"^evaluation\.evals\.ground_truth: "),
        ("images", {"tile_size": None, "tile_stride": 5}, r"^images\.tile_stride: expected images\.tile_size beside it, got none$"),
        ("images", {"heldout_fraction": 1}, r"^images\.heldout_fraction: expected less than 1, got 1$"),
        ("images", {"folder": None}, r"^images\.folder: missing key$"),
        ("model", {"prepend_bos": True}, r"^model\.prepend_bos: a token of text, unknown for images$"),
        ("activations", {"context_length": 64}, r"^activations\.context_length: a length of text, unknown for images$"),
        ("activations", {"image_tokens": None}, r"^activations\.image_tokens: missing key$"),
        ("activations", {"image_tokens": "patch"}, r"^activations\.image_tokens: expected one of 'cls', 'patches', 'all', got 'patch'$"),
        ("activations", {"layers": None}, r"^activations\.layers: missing key$"),
        ("methods", {"published": {"algorithm": "pretrained", "release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_16k/canonical"}}, r"^methods\.published: expected activations\.layers: \[13\] for an SAE of this place .*, got \[2\]$"),
        ("methods", {"published": {"algorithm": "pretrained", "release": "gemma-scope", "id": "x"}}, r"^methods\.published\.release: expected a release in SAELens's list .*, got 'gemma-scope'$"),
        ("methods", {"published": {"algorithm": "pretrained", "path": "nowhere"}}, r"^methods\.published\.path: expected a folder with cfg\.json, found none in /.*/nowhere \(relative paths begin at the working directory\)$"),
        ("methods", {"published": {"algorithm": "pretrained", "release": "a/b"}}, r"^methods\.published\.id: missing key$"),
        ("methods", {"published": {"algorithm": "pretrained"}}, r"^methods\.published: expected exactly one of the keys path or release, got none$"),
    ],
)  # fmt: skip
def test_wrong_setting_is_named(section: str, changes: dict[str, Any], message: str):
    config = make_config()
    changed = {**config[section], **changes}
    config[section] = {key: value for key, value in changed.items() if value is not None}
    if section != "methods":  # its folder is that of the run
        del config["methods"]["published"], config["fits"][0]["methods"][-1]
    with pytest.raises(SettingsError, match=message):
        Experiment(config)


@pytest.mark.parametrize("key", ["images", "model"])
def test_sections_are_needed(key: str):
    config = make_config()
    del config[key], config["methods"]["published"], config["fits"][0]["methods"][-1]
    with pytest.raises(
        SettingsError, match=rf"^{key}: missing key, needed for activations\.source"
    ):
        Experiment(config)


def test_shipped_experiment_is_planned_without_a_hub(run: Path):
    status, output = run_fork(run, "-n", config="experiments/dinov2.yaml")
    assert status == 1
    assert (
        f"error: config: images.folder: expected a folder, found nothing at {run}/images" in output
    )
    (run / "images").mkdir()
    for name in ("a.png", "b.png"):
        (run / "images" / name).write_bytes(name.encode())
    planned = plan(run, "experiments/dinov2.yaml")
    assert planned["prepare_images"] == 1
    assert planned["extract_image_activations"] == 8
    assert planned["fit_dictionary"] == 21
