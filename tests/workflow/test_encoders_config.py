"""Which dictionaries are coded by each encoder, and what a config may not ask for."""

import copy
import json
from typing import Any

import pytest
import yaml
from running import ROOT

from dbksvd.base.settings import SettingsError
from workflow.encoders import Encoders
from workflow.experiment import Experiment

TINY = yaml.safe_load((ROOT / "experiments/tiny.yaml").read_text())
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
PROBING = "sparse_probing_sae_probes"


def make(config: dict[str, Any], section: Any) -> Encoders:
    return Encoders(Experiment({**copy.deepcopy(config), "encoders": section}))


def test_one_dictionary_of_each_method_and_site_is_coded():
    found = make(DEFAULT, {"methods": ["dbksvd", "pca", "topk-sae"]}).fits
    assert [(fit.site, fit.name) for fit in found] == [
        ("layer4", "dbksvd/m512-k16-s0"),
        ("layer4", "pca/m384-k16-s0"),
        ("layer4", "topk-sae/m512-k16-s0"),
        ("synthetic", "dbksvd/m128-k7-s0"),
        ("synthetic", "topk-sae/m128-k7-s0"),
    ]
    assert len(make(TINY, {}).fits) == 3
    assert make(TINY, None).fits == []
    assert "encoders" in make(TINY, {}).experiment.figures
    assert "encoders" not in make(TINY, None).experiment.figures


def test_only_what_is_asked_for_is_probed():
    encoders = make(TINY, {"encoders": ["own", "ols"], "rows": 100, "probing": ["dbksvd"]})
    param = json.loads(encoders.scoring("dbksvd", "layer4"))
    assert (param["encoders"], param["rows"]) == (["own", "ols"], 100)
    assert param["probing"] == encoders.experiment.evals("layer4")[PROBING].dump()
    assert encoders.probes("dbksvd", "layer4")
    for method, site in (("topk-sae", "layer4"), ("dbksvd", "synthetic")):
        assert not encoders.probes(method, site)
        assert json.loads(encoders.scoring(method, site))["probing"] is None


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"methods": ["topk"]}, r"^encoders\.methods: expected names from methods, did .*'topk'$"),
        ({"probing": ["x"]}, r"^encoders\.probing: expected names from methods, got 'x'$"),
        ({"encoders": ["omp"]}, r"^encoders\.encoders\[0\]: expected one of .*, got 'omp'"),
        ({"encoders": []}, r"^encoders\.encoders: expected"),
        ({"methods": ["dbksvd", "dbksvd"]}, r"^encoders\.methods: expected no repeats"),
        ({"rows": 0}, r"^encoders\.rows: expected"),
    ],
)
def test_wrong_settings_are_named(section: dict[str, Any], message: str):
    with pytest.raises(SettingsError, match=message):
        make(TINY, section)


def test_probes_need_their_eval():
    config = copy.deepcopy(TINY)
    del config["evaluation"]["evals"][PROBING]
    with pytest.raises(
        SettingsError, match=r"^encoders\.probing: expected \[\] without evaluation"
    ):
        make(config, {"probing": ["dbksvd"]})


def test_enough_coded_rows_hold_unseen_pairs():
    config = yaml.safe_load((ROOT / "experiments/unseen-pairs.yaml").read_text())
    assert len(make(config, {"rows": 500}).fits) == 7
    with pytest.raises(
        SettingsError, match=r"^encoders\.rows: expected at least 500 samples, .*, got 499$"
    ):
        make(config, {"rows": 499})
    config["activations"]["held_out_pairs"] = None
    assert make(config, {"rows": 20}).settings.rows == 20
