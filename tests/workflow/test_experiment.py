"""Configs are checked before anything runs: one line that names the key."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from workflow.experiment import ConfigError, Experiment

ROOT = Path(__file__).parents[2]
SHIPPED = [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))]


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_are_valid(path: Path):
    experiment = Experiment(yaml.safe_load(path.read_text()))
    assert experiment.fits
    assert len({fit.name for fit in experiment.fits}) * len(experiment.sites) == len(
        experiment.fits
    )


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
        ("model/name", "x", r"^model: expected exactly one of the keys package or name, got .*"),
        ("activations/slices", 30000, r"^activations\.n_heldout_tokens: expected at least slices = 30000, got 20000$"),
        ("activations/source", "files", r"^activations\.files: missing key$"),
        ("figures/controls", ["randm"], r"^figures\.controls: expected names from methods, did you mean 'random'\?, got 'randm'$"),
        ("experiment", "../elsewhere", r"^experiment: expected text matching .*, got '\.\./elsewhere'$"),
        ("text", None, r"^text: expected object, got None$"),
    ],
)  # fmt: skip
def test_wrong_setting_is_named(config: dict[str, Any], keys: str, value: Any, message: str):
    set_value(config, keys, value)
    with pytest.raises(ConfigError, match=message):
        Experiment(config)


@pytest.mark.parametrize("key", ["experiment", "activations", "methods", "fits"])
def test_missing_key_is_named(config: dict[str, Any], key: str):
    del config[key]
    with pytest.raises(ConfigError, match=rf"^{key}: missing key$"):
        Experiment(config)


def test_text_is_needed_where_activations_come_from_a_model(config: dict[str, Any]):
    del config["text"]
    with pytest.raises(ConfigError, match=r"^text: missing key"):
        Experiment(config)


def test_params_do_not_depend_on_the_order_of_keys(config: dict[str, Any]):
    def reverse(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reverse(value[key]) for key in reversed(value)}
        return value

    one, other = Experiment(config), Experiment(reverse(copy.deepcopy(config)))
    assert one.section("text", "model") == other.section("text", "model")
    assert one.extraction(4) == other.extraction(4)
    assert one.rows() == other.rows()


def test_params_tell_swapped_values_apart(config: dict[str, Any]):
    before = Experiment(config).extraction(4)
    activations = config["activations"]
    activations["n_train_tokens"], activations["n_heldout_tokens"] = (
        activations["n_heldout_tokens"],
        activations["n_train_tokens"],
    )
    assert Experiment(config).extraction(4) != before
