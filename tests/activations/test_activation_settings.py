"""What the jobs of a site are told of the section ``activations``."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from dbksvd.activations.settings import (
    ActivationSettings,
    DrawSettings,
    ExtractionSettings,
    GroundTruthSettings,
    ImageExtraction,
    TextActivations,
    TextExtraction,
    choose_drawing,
    choose_extraction,
)
from dbksvd.base.settings import SettingsError, parse
from dbksvd.models.settings import ModelSettings

MODEL = parse(ModelSettings, {"name": "someone/model", "revision": "main"}, "model")
STREAM = {"n_tokens": 1000, "block_rows": 100}
MIXTURE = {
    "kind": "expert_mixture", "num_components": 4, "features_per_component": 7, "hidden_dim": 32,
    "subspace_dim": 8, "k": 3, "magnitude": [1.0, 0.2], "component_magnitude": 2.0,
    "sample_seed": 5,
}  # fmt: skip


def read(**values):
    return parse(ActivationSettings, values, "activations")


def test_text_is_the_source_that_needs_no_name():
    settings = read(layers=[4])
    assert isinstance(settings, TextActivations)
    assert settings == read(source="model", layers=[4])
    assert (settings.count("train"), settings.count("heldout")) == (200_000, 20_000)
    schema = TypeAdapter(ActivationSettings).json_schema()
    mapping = schema["discriminator"]["mapping"]
    assert mapping.keys() == {"model", "files", "images", "synthetic"}
    text = schema["$defs"][mapping["model"].rsplit("/", 1)[-1]]
    assert text["required"] == ["layers"]


def test_stored_rows_do_not_depend_on_the_stream():
    plain, streamed = read(layers=[2, 4]), read(layers=[2, 4], stream=STREAM)
    stored = choose_extraction(streamed, 4, MODEL)
    assert isinstance(stored, TextExtraction)
    assert stored == choose_extraction(plain, 4, MODEL)
    assert (stored.layer, stored.model, stored.stream) == (4, MODEL, None)
    fit = choose_extraction(streamed, 4, MODEL, streamed=True)
    assert fit.dump() == stored.dump() | {"stream": {**STREAM, "seed": 0}}
    for extraction in (stored, fit):
        assert parse(ExtractionSettings, extraction.dump(), "activations") == extraction


def test_other_sources_give_what_their_jobs_need():
    images = choose_extraction(read(source="images", layers=[1], image_tokens="cls"), 1, MODEL)
    assert isinstance(images, ImageExtraction)
    assert parse(ExtractionSettings, images.dump(), "activations") == images
    files = read(source="files", files={"path": "x.npy"})
    assert choose_extraction(files, None, None) is files
    with pytest.raises(ValueError, match=r"^model: missing key, needed for activations\.source"):
        choose_extraction(read(layers=[1]), 1, None)


def test_drawing_does_not_depend_on_what_makes_the_model():
    own = read(source="synthetic", synthetic=MIXTURE, n_train_tokens=70)
    beside = parse(GroundTruthSettings, {"synthetic": {**MIXTURE, "seed": 3}}, "ground_truth")
    assert choose_drawing(own) == DrawSettings(n_train_tokens=70, sample_seed=5)
    assert choose_drawing(beside) == DrawSettings(
        n_train_tokens=50_000, n_heldout_tokens=5_000, sample_seed=5
    )
    described = beside.synthetic.describe_model()
    assert "sample_seed" not in described
    assert described["seed"] == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "activations.layers: missing key"),
        ({"layers": [1, 1]}, "activations.layers: expected no repeats, got [1, 1]"),
        ({"source": "web"}, "activations.source: expected one of 'model', 'files', 'images', 'synthetic', got 'web'"),
        ({"layers": [1], "slices": 30_000}, "activations.n_heldout_tokens: expected at least slices = 30000, got 20000"),
        ({"source": "images", "layers": [1]}, "activations.image_tokens: missing key"),
        ({"source": "images", "context_length": 9}, "activations.context_length: a length of text, unknown for images"),
        ({"source": "files", "stream": STREAM}, "activations.stream: expected none for activations.source: files, since only text can be extracted again"),
        ({"source": "synthetic", "synthetic": {**MIXTURE, "k": 8}}, "activations.synthetic.k: expected at most features_per_component = 7, got 8"),
        ({"source": "synthetic"}, "activations.synthetic: missing key"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(SettingsError) as caught:
        read(**values)
    assert str(caught.value) == message
