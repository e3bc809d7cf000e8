from __future__ import annotations

import pytest

from dbksvd.base.site import Site


@pytest.mark.parametrize(
    "name", ["layer0", "layer4", "layer12", "random_layer4", "files", "synthetic"]
)
def test_a_site_and_its_name_say_the_same(name):
    site = Site.parse(name)
    assert str(site) == name
    assert site.is_layer == ("layer" in name)
    assert site.is_random == name.startswith("random")
    assert site.layer == (int(name.rpartition("layer")[2]) if site.is_layer else None)
    assert Site.parse(name) == Site(site.kind, site.layer)


@pytest.mark.parametrize(
    "name", ["", "layer", "layer-1", "layer04", "layer4/", "text", "Files", "random_layer"]
)
def test_other_names_are_refused(name):
    with pytest.raises(
        ValueError, match=r"^site: expected layer<number>, .*files or synthetic, got"
    ):
        Site.parse(name)


@pytest.mark.parametrize(
    "parts", [("layer", None), ("files", 3), ("layer", -1), ("text", None), ("random_layer", None)]
)
def test_layers_have_a_number_and_others_none(parts):
    with pytest.raises(ValueError, match=r"^site: expected "):
        Site(*parts)
