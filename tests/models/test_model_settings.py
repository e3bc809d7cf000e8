"""Which model is meant, and what is known of it before it is there."""

from __future__ import annotations

import pytest

from dbksvd.base.settings import SettingsError, parse
from dbksvd.models.settings import AccessSettings, ModelSettings

COMMIT = "ab" * 20


def read(**values) -> ModelSettings:
    return parse(ModelSettings, values, "model")


def test_a_converted_model_is_a_folder_for_later_stages():
    settings = read(gguf="a.gguf", sha256="ab" * 32, dtype="bfloat16", prepend_bos=True)
    later = settings.locate_converted("results/x/model")
    assert later == read(name="results/x/model", dtype="bfloat16", prepend_bos=True)
    assert (settings.shown_name, later.shown_name) == ("a.gguf", "results/x/model")


def test_what_fixes_the_weights():
    assert read(gguf="a.gguf", sha256="ab" * 32).is_fixed
    assert not read(gguf="a.gguf").is_fixed
    assert read(package="a", sha256="AB" * 32).sha256 == "ab" * 32
    assert read(package="a", sha256="ab" * 32).is_fixed
    assert read(name="a/b", revision=COMMIT).is_fixed
    assert not read(name="a/b", revision="main").is_fixed
    assert not read(package="a").is_fixed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "model: expected exactly one of the keys package or name or gguf, got none"),
        ({"name": "a", "gguf": "b"}, "model: expected exactly one of the keys package or name or gguf, got name and gguf"),
        ({"name": "a", "expect": {}}, "model.expect: expected at least 1 entry, got none"),
        ({"name": "a", "expect": {"width": 0}}, "model.expect.width: expected at least 1, got 0"),
        ({"name": "a", "sha256": "12"}, "model.sha256: expected text matching ^[0-9a-f]{64}$, got '12'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(SettingsError) as caught:
        read(**values)
    assert str(caught.value) == message


def test_nothing_is_asked_for_unless_it_is_said():
    wanted = parse(AccessSettings, {}, "access")
    assert (wanted.model, wanted.layers, wanted.data_sets, wanted.evals) == (None, [], [], {})
    assert parse(AccessSettings, wanted.dump(), "access") == wanted
