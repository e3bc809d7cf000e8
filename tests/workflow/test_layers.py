"""A second config lies over the first without contradictions that nobody wrote."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from running import ROOT

from dbksvd.base.settings import SettingsError
from workflow.experiment import Experiment
from workflow.layers import lay_over, read_layers

DEFAULT = ROOT / "config.yaml"


def lay(tmp_path: Path, above: dict[str, Any]) -> Experiment:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(above))
    return Experiment(read_layers([DEFAULT, tmp_path / "mine.yaml"], {}))


def test_mappings_are_merged_and_all_else_is_replaced():
    below = {"a": {"x": 1, "y": [1, 2]}, "b": 2}
    assert lay_over(below, {"a": {"y": [3]}, "c": 4}) == {"a": {"x": 1, "y": [3]}, "b": 2, "c": 4}
    assert below == {"a": {"x": 1, "y": [1, 2]}, "b": 2}


def test_own_model_takes_the_place_of_the_package(tmp_path: Path, tiny_encoder: Path):
    short = {"context_length": 32}  # the positions that the tiny model has
    evals = ("core", "sparse_probing", "sparse_probing_sae_probes")
    experiment = lay(
        tmp_path,
        {
            "model": {"name": str(tiny_encoder), "sha256": None},
            "activations": {"layers": [2]} | short,
            "evaluation": {"evals": dict.fromkeys(evals, short)},
        },
    )
    assert experiment.config.model is not None
    assert experiment.config.model.package is None
    assert experiment.config.model.dtype == "float32"
    assert experiment.sites == ["layer2", "synthetic"]


def test_another_source_leaves_behind_what_belongs_to_the_first(tmp_path: Path):
    experiment = lay(
        tmp_path,
        {"activations": {"source": "files", "files": {"path": "x.npy"}, "n_train_tokens": 100,
                         "n_heldout_tokens": 10}},
    )  # fmt: skip
    assert experiment.sites == ["files"]
    assert experiment.config.model is None
    assert not experiment.config.evaluation.list_evals()


def test_another_algorithm_replaces_the_settings_of_a_method(tmp_path: Path):
    experiment = lay(tmp_path, {"methods": {"kron-sae": {"algorithm": "dbksvd", "max_iter": 3}}})
    assert experiment.config.methods["kron-sae"].max_iter == 3
    experiment = lay(tmp_path, {"methods": {"topk-sae": {"lr": 0.5}}})
    settings = experiment.config.methods["topk-sae"]
    assert (settings.architecture, settings.lr, settings.training_samples) == ("topk", 0.5, 400000)


def test_null_takes_a_key_away(tmp_path: Path):
    experiment = lay(tmp_path, {"evaluation": {"evals": {"core": None}}, "ground_truth": None})
    assert "core" not in experiment.config.evaluation.list_evals()
    assert experiment.sites == ["layer4"]


def test_command_line_lies_over_all_files():
    assert Experiment(read_layers([DEFAULT], {"experiment": "other"})).folder == "results/other"


@pytest.mark.parametrize(
    ("text", "message"),
    [("- 1\n", r"mine\.yaml: expected keys and values, got list"), ("a: [\n", r"mine\.yaml: expected a YAML file")],
)  # fmt: skip
def test_odd_files_are_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_layers([tmp_path / "mine.yaml"], {})
