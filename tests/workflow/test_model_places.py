"""Several places in the model: what a config may say of them, and the jobs that come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import CONFIG, copy_project, plan, run_fork

from dbksvd.base.settings import SettingsError
from dbksvd.base.site import Site
from workflow.experiment import Experiment
from workflow.pages import Pages

ROOT = Path(__file__).parents[2]
PLACES = ["residual", "attention", "mlp"]
KNOWN = "residual, residual_before, attention, mlp, mlp_input, mlp_pair"


@pytest.fixture
def config() -> dict[str, Any]:
    found = yaml.safe_load((ROOT / CONFIG).read_text())
    found["activations"] |= {"layers": [3, 4], "sites": PLACES}
    return found


def test_every_place_at_every_layer_is_a_site(config: dict[str, Any]):
    grid = {"methods": ["topk-sae"], "n_atoms": [64], "k": [4]}
    config["randomised"] = {"seed": 1, "fits": [grid]}
    experiment = Experiment(config)
    trained = ["layer3", "layer3_attention", "layer3_mlp", "layer4", "layer4_attention"]
    assert experiment.model_sites == [*trained, "layer4_mlp"]
    assert experiment.sites[6:] == [f"random_{site}" for site in experiment.model_sites]
    assert {fit.site for fit in experiment.fits} == set(experiment.sites)
    assert {Site.parse(site).place for site in experiment.sites} == set(PLACES)
    for site in experiment.sites:
        section = experiment.extraction(site)
        assert (section["layer"], section["place"]) == (Site.parse(site).layer, Site.parse(site).place)  # fmt: skip
        assert (section["model"]["randomise"] is not None) == site.startswith("random_")
        # some evals mean something of the residual stream alone
        elsewhere = {"core", "sparse_probing_sae_probes"}
        asked = set(config["evaluation"]["evals"])
        is_residual = site.endswith(("layer3", "layer4"))
        assert set(experiment.evals(site)) == (asked if is_residual else asked & elsewhere)
        for name in experiment.evals(site):
            told = json.loads(experiment.preparation(name, site, 3))
            assert told.get("place") == (None if is_residual else Site.parse(site).place)
    assert json.loads(Pages(experiment).extraction("layer3_mlp"))["place"] == "mlp"


def test_a_module_of_one_s_own_is_a_place(config: dict[str, Any]):
    config["evaluation"]["evals"] = {}
    config["activations"] |= {
        "sites": ["mlp", "wide"],
        "modules": {
            "wide": "encoder.layer.{block}.intermediate",
            "mlp": "encoder.layer.{block}.output",
        },
    }
    experiment = Experiment(config)
    assert experiment.sites == ["layer3_mlp", "layer3_wide", "layer4_mlp", "layer4_wide"]
    modules = [experiment.extraction(site)["hook_module"] for site in experiment.sites]
    layer = "encoder.layer"
    assert modules[:2] == [f"{layer}.2.output", f"{layer}.2.intermediate"]
    assert modules[2:] == [f"{layer}.3.output", f"{layer}.3.intermediate"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sites": ["residual", "hook_mlp_out"]}, f"activations.sites[1]: expected one of {KNOWN}, or a name of modules, got 'hook_mlp_out', close names: mlp, attention"),
        ({"sites": ["atention"]}, f"activations.sites[0]: expected one of {KNOWN}, or a name of modules, got 'atention', close names: attention"),
        ({"sites": ["mlp", "mlp"]}, "activations.sites: expected no repeats, got ['mlp', 'mlp']"),
        ({"layers": [0, 4]}, "activations.layers: expected layers from 1 for attention, since the embeddings have no such place, got [0, 4]"),
        ({"layers": [4], "hook_module": "encoder.layer.3"}, "activations.sites: expected one beside activations.hook_module, for which the number of the layer is a label only, got ['residual', 'attention', 'mlp']"),
        ({"modules": {"gate": "encoder.{block}.x"}}, "activations.modules.gate: no effect without gate in sites, got sites: ['residual', 'attention', 'mlp']"),
        ({"modules": {"mlp": "encoder.3.x"}}, "activations.modules.mlp: expected a path with {block} in it, got 'encoder.3.x'"),
        ({"modules": {"mlp_pair": "encoder.{block}"}}, "activations.modules.mlp_pair: expected no entry, since it is a pair of modules"),
        ({"modules": {"residual": "encoder.{block}"}}, "activations.modules.residual: expected no entry, since it is the output of a block"),
    ],
)  # fmt: skip
def test_a_place_that_is_not_there_is_told(
    config: dict[str, Any], changes: dict[str, Any], problem: str
):
    config["activations"] |= changes
    config["evaluation"]["evals"] = {}
    with pytest.raises(SettingsError) as caught:
        Experiment(config)
    assert [*caught.value.problems] == [problem]


def test_a_model_that_the_tables_do_not_know(config: dict[str, Any], tmp_path: Path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 4, "max_position_embeddings": 512}
    model = {"model_type": "opt", "architectures": ["OPTModel"], **sizes}
    (tmp_path / "config.json").write_text(json.dumps(model))
    config["model"] = {"name": str(tmp_path)}
    with pytest.raises(SettingsError) as caught:
        Experiment(config)
    expected = "expected one of residual, residual_before for a model of type opt, or the path of a"
    assert [*caught.value.problems] == [
        f"activations.sites[{number}]: {expected} module in activations.modules.{place}, got {place!r}"
        for number, place in ((1, "attention"), (2, "mlp"))
    ]
    modules = {"attention": "layers.{block}.self_attn", "mlp": "layers.{block}.fc2"}
    config["activations"]["modules"] = modules
    assert len(Experiment(config).model_sites) == 6


def test_transcoders_are_fitted_at_pairs_and_all_else_elsewhere(config: dict[str, Any]):
    config["activations"]["sites"] = ["residual", "mlp_pair"]
    config["methods"]["transcoder"] = {"algorithm": "sae", "architecture": "transcoder"}
    config["fits"] = [{"methods": ["topk-sae", "transcoder"], "n_atoms": [64], "k": [4], "seeds": [0, 1]}]  # fmt: skip
    experiment = Experiment(config)
    assert {(fit.site, fit.method) for fit in experiment.fits} == {
        ("layer3", "topk-sae"), ("layer4", "topk-sae"),
        ("layer3_mlp_pair", "transcoder"), ("layer4_mlp_pair", "transcoder"),
    }  # fmt: skip
    assert {kind[0] for kind in experiment.seed_groups} == {"layer3", "layer4"}
    assert Pages(experiment).sites == ["layer3", "layer4"]
    assert not experiment.evals("layer3_mlp_pair")


PAIR_METHODS = {
    "topk-sae": {"algorithm": "sae", "architecture": "topk"},
    "transcoder": {"algorithm": "sae", "architecture": "transcoder"},
}


@pytest.mark.parametrize(
    ("sites", "fitted", "problems"),
    [
        (["residual"], ["topk-sae", "transcoder"], ["fits[0].methods: expected mlp_pair in activations.sites for transcoder, which fits pairs, got ['residual']"]),
        (["mlp_pair"], ["topk-sae", "transcoder"], ["fits[0].methods: expected another place than mlp_pair in activations.sites for topk-sae, which fits no pairs, got ['mlp_pair']"]),
        (["residual", "mlp_pair"], ["topk-sae"], ["activations.sites[1]: expected a transcoder in fits, which mlp_pair is read for, got topk-sae"]),
        (["mlp_pair", "mlp"], ["transcoder"], ["activations.sites[1]: expected a method that is no transcoder in fits, which mlp is read for, got transcoder"]),
    ],
)  # fmt: skip
def test_pairs_without_transcoders_are_refused(
    config: dict[str, Any], sites: list[str], fitted: list[str], problems: list[str]
):
    config["activations"]["sites"] = sites
    config["evaluation"]["evals"] = {}
    config["methods"] = PAIR_METHODS
    config["fits"] = [{"methods": fitted, "n_atoms": [64], "k": [4]}]
    with pytest.raises(SettingsError) as caught:
        Experiment(config)
    assert [*caught.value.problems] == problems


@pytest.mark.parametrize(
    ("changes", "evals", "problem"),
    [
        ({"hook_module": "encoder.layer.3.output", "layers": [4]}, {"core": {}, "scr": {}}, "evaluation.evals: expected {} beside activations.hook_module, since evals read places of activations.sites, got core, scr"),
        ({"sites": ["mlp"]}, {"core": {}, "scr": {}}, "evaluation.evals.scr: expected residual in activations.sites, whose dictionaries it can score, got ['mlp']"),
        ({"sites": ["wide"], "modules": {"wide": "encoder.layer.{block}.intermediate"}}, {"core": {}}, "evaluation.evals.core: expected a place of the tables in activations.sites, whose dictionaries it can score, got ['wide']"),
    ],
)  # fmt: skip
def test_an_eval_that_can_score_no_place_is_refused(
    config: dict[str, Any], changes: dict[str, Any], evals: dict[str, Any], problem: str
):
    config["activations"] |= {"sites": ["residual"], **changes}
    config["evaluation"]["evals"] = evals
    config["text"]["held_out_datasets"] = None
    with pytest.raises(SettingsError) as caught:
        Experiment(config)
    assert [*caught.value.problems] == [problem]


def test_transcoders_are_scored_by_no_eval(config: dict[str, Any]):
    config["activations"]["sites"] = ["mlp_pair"]
    config["methods"] = {"transcoder": PAIR_METHODS["transcoder"]}
    config["fits"] = [{"methods": ["transcoder"], "n_atoms": [64], "k": [4]}]
    config["evaluation"]["evals"] = {"core": {}}
    config["text"]["held_out_datasets"] = None
    with pytest.raises(SettingsError, match=r"^evaluation\.evals\.core: expected a place of the tables in activations\.sites, whose dictionaries it can score, got \['mlp_pair'\]$"):  # fmt: skip
        Experiment(config)


@pytest.mark.parametrize(
    ("section", "given", "problem"),
    [
        ("pages", {"dictionaries": ["transcoder/m64-k4-s0"]}, "pages.dictionaries[0]: expected a dictionary of `fits`, did you mean 'topk-sae/m64-k4-s0'?, got 'transcoder/m64-k4-s0'"),
        ("encoders", {"methods": ["transcoder"], "probing": []}, "encoders.methods: expected methods that reconstruct what they encode, got 'transcoder'"),
    ],
)  # fmt: skip
def test_what_reads_no_transcoder_says_so(
    config: dict[str, Any], section: str, given: dict[str, Any], problem: str
):
    config["activations"]["sites"] = ["residual", "mlp_pair"]
    config["methods"] = PAIR_METHODS
    config["fits"] = [{"methods": [*PAIR_METHODS], "n_atoms": [64], "k": [4]}]
    config[section] = given
    with pytest.raises(SettingsError) as caught:
        Experiment(config)
    assert [*caught.value.problems] == [problem]


def test_nothing_begins_from_a_transcoder(config: dict[str, Any]):
    config["activations"]["sites"] = ["residual", "mlp_pair"]
    config["methods"] = {**PAIR_METHODS, "permuted": {"algorithm": "permuted", "of": "transcoder"}}
    config["fits"] = [{"methods": [*config["methods"]], "n_atoms": [64], "k": [4]}]
    with pytest.raises(SettingsError) as caught:
        Experiment(config)
    assert [*caught.value.problems] == [
        "methods.permuted.of: expected a method that reconstructs what it encodes, got 'transcoder'"
    ]


def test_a_slice_is_one_job_for_all_places(config: dict[str, Any], tmp_path: Path):
    project = copy_project(tmp_path / "project")
    config["pages"] = None
    config["randomised"] = {"seed": 1, "fits": config["fits"][1:]}
    (project / CONFIG).write_text(yaml.safe_dump(config))
    planned = plan(project)
    assert planned["extract_activations"] == 2 * 2  # slices, of two models
    assert planned["shard_activations"] == 12
    assert planned["prepare_evaluation"] == 2 * 12
    status, output = run_fork(project, "-n", "--cache", "extract_activations", "--quiet")
    assert status == 0, output
    del config["randomised"]
    (project / CONFIG).write_text(yaml.safe_dump(config))
    assert plan(project)["extract_activations"] == 2
