"""Images, synthetic samples and ready rows: features without tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from features_helpers import N_ATOMS, SETTINGS, STORED, describe_activations, write_dictionary
from image_helpers import save_dinov2, save_photographs

from dbksvd import ActivationShards
from dbksvd.activations.from_images import extract_image_slice
from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.sharding import write_shards
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.features.collect import collect_examples
from dbksvd.features.exports import export_activations
from dbksvd.features.image_contexts import ImageContexts
from dbksvd.features.row_contexts import RowContexts
from dbksvd.features.site import SiteFeatures
from dbksvd.images.prepare import prepare_images

NAME = "signed/m50-k6-s0"


@pytest.fixture
def dictionary(tmp_path):
    return write_dictionary(tmp_path / "dictionary", nonnegative=False, seed=2)


@pytest.mark.parametrize("image_tokens", ["all", "patches"])
def test_images_show_the_tiles_that_fire(image_tokens, dictionary, tmp_path):
    save_photographs(tmp_path / "images")
    settings = {"folder": str(tmp_path / "images"), "heldout_fraction": 0.25, "tile_size": 53}
    prepare_images(settings, tmp_path / "prepared")
    model = save_dinov2(tmp_path / "dinov2", registers=2)
    extraction = {
        "source": "images", "model": {"name": str(model)}, "layer": 2, "batch_size": 3,
        "image_tokens": image_tokens, "n_train_tokens": 100, "n_heldout_tokens": 200,
    }  # fmt: skip
    source = ImageContexts(extraction, tmp_path / "prepared")
    manifest = collect_examples(source, {NAME: dictionary}, SETTINGS, tmp_path / "site")
    assert manifest["kind"] == "images"
    # 1 class token, 2 registers, 4 x 4 patches
    per_tile = 19 if image_tokens == "all" else 16
    tiles = manifest["data"]["contexts"]
    assert manifest["data"]["tokens"] == tiles * per_tile
    site = SiteFeatures.open(tmp_path / "site")
    assert site.tiles["grid"] == [4, 4]
    assert site.tiles["first_patch"] == 3

    # the rows of a plain extraction: the first 200 tokens of the same tiles
    extract_image_slice(extraction, 0, tmp_path / "part.h5", images=tmp_path / "prepared")
    write_shards([tmp_path / "part.h5"], {"rows_per_shard": 500, "seed": 0}, tmp_path / "shards")
    shards = ActivationShards.open(tmp_path / "shards", "heldout")
    labels = shards.read_labels(0, 200)
    z = load_dictionary(dictionary).encode(shards.read(0, 200)).to_dense().numpy()
    z = np.concatenate([z.clip(0), (-z).clip(0)], axis=1)
    rows = {key: i for i, key in enumerate(zip(*(array.tolist() for array in labels), strict=True))}
    arrays, compared = site.read(NAME), 0
    for feature in range(2 * N_ATOMS):
        for number in arrays.list_examples(feature):
            example = site.describe_example(arrays, number)
            assert example["first"] == 0
            assert len(example["values"]) == 19
            assert example["values"][example["position"]] == max(example["values"])
            image = site.tiles["images"][str(example["document"])]
            left, upper, right, lower = image["boxes"][str(example["tile"])]
            assert (tmp_path / "images" / image["name"]).is_file()
            assert right - left == lower - upper == 53
            for place, value in enumerate(example["values"]):
                row = rows.get((example["document"], place, example["tile"]))
                if row is not None:
                    assert value == pytest.approx(z[row, feature], rel=STORED + 1e-5, abs=1e-5)
                    compared += 1
    assert compared > 1000
    with pytest.raises(ValueError, match="site: expected one of text, got images"):
        export_activations(site, NAME, tmp_path / "x.safetensors")


def test_rows_have_their_number_and_the_features_they_match(
    dictionary, tiny_encoder, text_folder, tmp_path
):
    extract_slice(describe_activations(tiny_encoder), 0, tmp_path / "part.h5", text=text_folder)
    write_shards([tmp_path / "part.h5"], {"rows_per_shard": 20, "seed": 0}, tmp_path / "shards")
    shards = ActivationShards.open(tmp_path / "shards", "heldout")
    loaded = load_dictionary(dictionary)
    draw = torch.Generator().manual_seed(3)
    truth = torch.randn(30, 16, generator=draw)
    truth[4] = -2 * loaded.atoms[7]
    manifest = collect_examples(
        RowContexts(shards), {NAME: dictionary}, SETTINGS, tmp_path / "site", truth=truth
    )
    assert manifest["kind"] == "rows"
    site = SiteFeatures.open(tmp_path / "site")
    arrays = site.read(NAME)
    a = arrays.arrays
    z = loaded.encode(shards.read(0, len(shards))).to_dense().numpy()
    z = np.concatenate([z.clip(0), (-z).clip(0)], axis=1)
    np.testing.assert_array_equal(a["count"], (z != 0).sum(axis=0))
    for feature, column in enumerate(z.T):
        order = np.argsort(-column, kind="stable")[:6]
        rows = [n for n in arrays.list_examples(feature) if a["example_group"][n] == 0]
        assert a["example_document"][rows].tolist() == order[column[order] > 0].tolist()
    cosines = torch.nn.functional.cosine_similarity(loaded.atoms[:, None], truth, dim=2).numpy()
    order = np.argsort(-np.abs(cosines), axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(a["truth_feature"], order)
    np.testing.assert_allclose(
        a["truth_cosine"], np.take_along_axis(cosines, order, axis=1), atol=STORED
    )
    assert a["truth_match"][7] == 4
    matched = a["truth_match"][a["truth_match"] >= 0]
    assert sorted(matched.tolist()) == list(range(30))
    described = site.describe_atom(arrays, 7)
    assert described["truth"]["nearest"][0] == {
        "feature": 4,
        "cosine": pytest.approx(-1, abs=STORED),
    }
    assert "tokens" not in described["sides"][0]
