"""`dbksvd export` of features writes what the functions write, and says in one line what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from features_helpers import SETTINGS, describe_activations, write_dictionary

from dbksvd.base.files import hash_files
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.features.collect import collect_examples
from dbksvd.features.exports import export_activations, export_neuronpedia
from dbksvd.features.site import SiteFeatures
from dbksvd.features.text_contexts import TextContexts
from dbksvd.text.documents import prepare_text

ROOT = Path(__file__).parents[2]
NAME = "signed/m50-k6-s0"


@pytest.fixture(scope="module")
def layer(tmp_path_factory, tiny_causal, make_sentences) -> Path:
    """Return the folder of a site, as a run leaves it."""
    base = tmp_path_factory.mktemp("results") / "own"
    text = base.parent / "text.txt"
    text.write_text("\n".join(make_sentences(30, seed=5)))
    settings = {"sources": [{"kind": "file", "path": str(text)}], "max_documents": 30}
    prepare_text(settings | {"heldout_fraction": 0.5, "seed": 1}, base / "text")
    folder = write_dictionary(base / "layer2" / "dictionaries" / NAME, nonnegative=False, seed=2)
    source = TextContexts(describe_activations(tiny_causal), base / "text")
    collect_examples(source, {NAME: folder}, SETTINGS, base / "layer2" / "features")
    return base / "layer2"


def export(
    layer: Path, form: str, output: Path, *more: str, dictionary: str = f"dictionaries/{NAME}"
):
    command = [sys.executable, "-m", "dbksvd.command.main", "export", dictionary, output]
    return subprocess.run(
        [*command, "--format", form, *more],
        cwd=layer,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_neuronpedia(layer, tmp_path):
    done = export(layer, "neuronpedia", tmp_path / "batches")
    assert done.returncode == 0, done.stderr
    features = SiteFeatures.open(layer / "features")
    dictionary = load_dictionary(layer / "dictionaries" / NAME)
    export_neuronpedia(features, NAME, dictionary, tmp_path / "expected", sae_set="own")
    assert hash_files(tmp_path / "batches") == hash_files(tmp_path / "expected")
    copy = tmp_path / "copy" / NAME
    shutil.copytree(layer / "dictionaries" / NAME, copy)
    options = ("--site", "features", "--sae-set", "mine")
    done = export(layer, "neuronpedia", tmp_path / "mine", *options, dictionary=str(copy))
    assert done.returncode == 0, done.stderr
    (batch,) = (tmp_path / "mine").iterdir()
    content = json.loads(batch.read_text())
    assert content["sae_set"] == "mine"
    (expected,) = (tmp_path / "expected").iterdir()
    assert content == json.loads(expected.read_text()) | {"sae_set": "mine"}


def test_activations(layer, tmp_path):
    done = export(layer, "activations", tmp_path / "found.safetensors")
    assert done.returncode == 0, done.stderr
    features = SiteFeatures.open(layer / "features")
    export_activations(features, NAME, tmp_path / "expected.safetensors")
    found, expected = ((tmp_path / f"{n}.safetensors").read_bytes() for n in ("found", "expected"))
    assert found == expected


def test_errors_are_one_line(layer, tmp_path):
    shutil.copytree(layer / "dictionaries" / NAME, layer / "dictionaries/other/m50-k6-s0")
    other = "dictionaries/other/m50-k6-s0"
    done = export(layer, "activations", tmp_path / "x.safetensors", dictionary=other)
    assert done.returncode == 1
    assert done.stderr == (f"error: dictionary: expected one of {NAME}, got 'other/m50-k6-s0'\n")
    for form, dictionary in ("neuronpedia", "none"), ("activations", f"dictionaries/{NAME}"):
        done = export(layer, form, tmp_path / "x", dictionary=dictionary)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "x").exists()
