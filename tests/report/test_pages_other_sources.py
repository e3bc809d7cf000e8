"""Pages of dictionaries whose activations come from images, or from rows without tokens."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from features_helpers import N_ATOMS, SETTINGS, describe_activations, write_dictionary
from image_helpers import save_dinov2, save_photographs
from page_chunks import read_atoms
from PIL import Image

from dbksvd import ActivationShards
from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.sharding import write_shards
from dbksvd.features.collect import collect_examples
from dbksvd.features.image_contexts import ImageContexts
from dbksvd.features.row_contexts import RowContexts
from dbksvd.features.site_files import read_arrays
from dbksvd.images.prepare import prepare_images
from dbksvd.report.pages.render import PageInputs, render_pages
from dbksvd.text.documents import prepare_text

NAME = "signed/m50-k6-s0"


def render(base: Path, site: str, features: Path) -> Path:
    """Render the pages; return the folder of the dictionary's."""
    key = {"site": site, "method": "signed", "n_atoms": 50, "k": 6}
    table = pd.DataFrame([key | {"seeds": 1, "variance explained": "0.5"}])
    table.to_csv(base / "table.csv", index=False)
    metric = {"seed": 0, "eval": "heldout", "metric": "explained_variance", "value": 0.5}
    pd.DataFrame([key | metric]).to_csv(base / "scores.csv", index=False)
    inputs = PageInputs("e", {}, {site: features}, base / "table.csv", base / "scores.csv", [])
    render_pages(inputs, base / "site")
    for path in (base / "site").rglob("*.html"):
        HTMLParser().feed(path.read_text())
    return base / "site" / site / "signed-m50-k6-s0"


def test_images_show_the_tile_with_the_patch_that_fires(tmp_path):
    save_photographs(tmp_path / "images")
    settings = {"folder": str(tmp_path / "images"), "heldout_fraction": 0.25, "tile_size": 53}
    prepare_images(settings, tmp_path / "prepared")
    model = save_dinov2(tmp_path / "dinov2", registers=2)
    extraction = {
        "source": "images", "model": {"name": str(model)}, "layer": 2, "batch_size": 3,
        "image_tokens": "patches", "n_train_tokens": 100, "n_heldout_tokens": 200,
    }  # fmt: skip
    dictionary = write_dictionary(tmp_path / "dictionary", nonnegative=False, seed=2)
    source = ImageContexts(extraction, tmp_path / "prepared")
    collect_examples(source, {NAME: dictionary}, SETTINGS, tmp_path / "features")
    page = render(tmp_path, "layer2", tmp_path / "features")
    arrays = read_arrays(tmp_path / "features" / "atoms" / f"{NAME}.h5")
    tiles = json.loads((tmp_path / "features" / "tiles.json").read_text())
    atoms = read_atoms(page)
    assert len(atoms) == N_ATOMS
    shown = 0
    for number, atom in enumerate(atoms):
        for side, content in enumerate(atom["sides"]):
            feature = number + side * N_ATOMS
            assert content["count"] == arrays["count"][feature]
            examples = range(*arrays["example_start"][feature : feature + 2].tolist())
            for e, example in zip(examples, content.get("examples", []), strict=True):
                image = tiles["images"][str(arrays["example_document"][e])]
                assert example["n"] == image["name"]
                assert example["tile"] == arrays["example_tile"][e]
                picture = Image.open(
                    io.BytesIO(
                        base64.b64decode(example["i"].removeprefix("data:image/jpeg;base64,"))
                    )
                )
                patch = int(arrays["example_position"][e]) - tiles["first_patch"]
                row, column = divmod(patch, tiles["grid"][1])
                whole = Image.open(Path(tiles["folder"]) / image["name"]).convert("RGB")
                plain = whole.crop(image["boxes"][str(example["tile"])]).resize(picture.size)
                step = picture.width // tiles["grid"][1]
                difference = np.abs(np.asarray(picture, int) - np.asarray(plain, int)).sum(axis=2)
                frame = difference[
                    row * step : (row + 1) * step, column * step : (column + 1) * step
                ]
                # the frame of the patch differs from the picture, the rest by JPEG's losses only
                outside = difference.sum() - frame.sum()
                patches = np.prod(tiles["grid"]) - 1
                assert frame.sum() > 2 * outside / patches
                shown += 1
    assert shown > 100
    sides = [side for atom in atoms for side in atom["sides"]]
    sizes = [len(example["i"]) for side in sides for example in side.get("examples", [])]
    # what the defaults keep of an atom of signed codes: 2 sides of 20 + 5 * 5
    assert 90 * np.mean(sizes) < 300_000
    assert max(path.stat().st_size for path in page.rglob("*.js")) < 300_000
    info = json.loads(
        (page / "index.html").read_text().split('id="info">')[1].split("</script>")[0]
    )
    assert info["context_word"] == "tile"


@pytest.fixture
def rows(tmp_path, tiny_encoder, make_sentences) -> ActivationShards:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(make_sentences(60, seed=5)))
    settings = {"sources": [{"kind": "file", "path": str(text)}], "max_documents": 60}
    prepare_text(settings | {"heldout_fraction": 0.4, "seed": 1}, tmp_path / "text")
    part = tmp_path / "part.h5"
    extract_slice(describe_activations(tiny_encoder), 0, part, text=tmp_path / "text")
    write_shards([part], {"rows_per_shard": 20, "seed": 0}, tmp_path / "shards")
    return ActivationShards.open(tmp_path / "shards", "heldout")


def test_rows_have_numbers_and_true_features_in_place_of_text(rows, tmp_path):
    dictionary = write_dictionary(tmp_path / "dictionary", nonnegative=False, seed=2)
    truth = torch.randn(30, 16, generator=torch.Generator().manual_seed(3))
    collect_examples(
        RowContexts(rows), {NAME: dictionary}, SETTINGS, tmp_path / "features", truth=truth
    )
    page = render(tmp_path, "synthetic", tmp_path / "features")
    arrays = read_arrays(tmp_path / "features" / "atoms" / f"{NAME}.h5")
    for number, atom in enumerate(read_atoms(page)):
        assert atom["truth"]["match"] == arrays["truth_match"][number]
        pairs = zip(
            arrays["truth_feature"][number].tolist(),
            arrays["truth_cosine"][number].tolist(),
            strict=True,
        )
        for (feature, cosine), (wanted, value) in zip(
            atom["truth"]["features"], pairs, strict=True
        ):
            assert feature == wanted
            assert cosine == pytest.approx(value, rel=1e-2)
        for side, content in enumerate(atom["sides"]):
            feature = number + side * N_ATOMS
            assert content["count"] == arrays["count"][feature]
            first, last = arrays["example_start"][feature : feature + 2]
            documents = [example["d"] for example in content.get("examples", [])]
            assert documents == arrays["example_document"][first:last].tolist()
            assert all(example["t"] == [] for example in content.get("examples", []))
            assert content.get("tokens", []) == []
    html = (page / "index.html").read_text()
    info = json.loads(html.split('id="info">')[1].split("</script>")[0])
    assert info["context_word"] == "row"
    assert info["sources"] == []
    assert info["buckets"] == []
