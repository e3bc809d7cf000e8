"""The model with its weights drawn anew, for a whole experiment or at a site of its own."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dbksvd.base.settings import SettingsError
from dbksvd.models.loading import load_model
from workflow.encoders import Encoders
from workflow.experiment import Experiment
from workflow.pages import Pages

ROOT = Path(__file__).parents[2]
TINY = yaml.safe_load((ROOT / "experiments/tiny.yaml").read_text())
GRID = {"methods": ["dbksvd"], "n_atoms": [64], "k": [4], "seeds": [0]}


def load(folder: Path, **randomise: Any) -> dict[str, torch.Tensor]:
    loaded = load_model({"name": str(folder), "device": "cpu", "randomise": randomise})
    return dict(loaded.model.named_parameters())


@pytest.mark.parametrize("kind", ["tiny_encoder", "tiny_causal"])
def test_weights_differ_and_the_architecture_does_not(kind: str, request):
    folder = request.getfixturevalue(kind)
    trained = load_model({"name": str(folder), "device": "cpu"})
    weights = dict(trained.model.named_parameters())
    drawn = load(folder, seed=0)
    assert drawn.keys() == weights.keys()
    for name, weight in weights.items():
        new = drawn[name]
        assert (new.shape, new.dtype) == (weight.shape, weight.dtype)
        if weight.std() > 0:
            assert not torch.equal(new, weight), name
        if weight.numel() > 200:
            assert new.mean() == pytest.approx(weight.mean().item(), abs=0.3 * weight.std().item())
            assert new.std() == pytest.approx(weight.std().item(), rel=0.2)
    assert load_model({"name": str(folder), "randomise": {"seed": 3}}).name.endswith(
        "-randomised-3"
    )


def test_a_seed_decides_the_weights(tiny_encoder):
    one, again, other = load(tiny_encoder), load(tiny_encoder, seed=0), load(tiny_encoder, seed=1)
    varied = [name for name, weight in one.items() if weight.std() > 0]
    assert varied
    for name in varied:
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], other[name])
    shapes: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for name in varied:
        shapes.setdefault(tuple(one[name].shape), []).append(one[name])
    first, second, *_ = max(shapes.values(), key=len)
    assert not torch.allclose(
        (first - first.mean()) / first.std(), (second - second.mean()) / second.std()
    )


@pytest.mark.parametrize("kind", ["tiny_encoder", "tiny_causal"])
def test_embeddings_can_stay(kind: str, request):
    folder = request.getfixturevalue(kind)
    trained = load_model({"name": str(folder), "device": "cpu"}).model
    kept = load_model(
        {"name": str(folder), "device": "cpu", "randomise": {"embeddings": "keep"}}
    ).model
    assert torch.equal(trained.get_input_embeddings().weight, kept.get_input_embeddings().weight)
    drawn = load_model({"name": str(folder), "device": "cpu", "randomise": {}}).model
    assert not torch.equal(
        trained.get_input_embeddings().weight, drawn.get_input_embeddings().weight
    )
    if kind == "tiny_causal" and trained.config.tie_word_embeddings:
        assert drawn.get_output_embeddings().weight is drawn.get_input_embeddings().weight


def test_a_site_beside_the_layers_has_the_random_model_and_fits_of_its_own():
    config = {**copy.deepcopy(TINY), "randomised": {"seed": 5, "fits": [GRID]}, "encoders": {}}
    experiment = Experiment(config)
    assert experiment.sites == ["layer4", "random_layer4"]
    assert [fit.name for fit in experiment.fits if fit.site == "random_layer4"] == [
        "dbksvd/m64-k4-s0"
    ]
    trained = experiment.extraction("layer4")
    drawn = experiment.extraction("random_layer4")
    assert drawn["model"].pop("randomise") == {"seed": 5, "embeddings": "redraw"}
    assert trained["model"].pop("randomise") is None
    assert trained == drawn
    for param in (
        experiment.scoring("random_layer4"),
        experiment.preparation("core", "random_layer4", 4),
    ):
        assert json.loads(param)["model"]["randomise"]["seed"] == 5
    assert json.loads(experiment.scoring("layer4"))["model"]["randomise"] is None
    assert experiment.evals("random_layer4").keys() == experiment.evals("layer4").keys()
    assert Pages(experiment).sites == ["layer4"]
    assert {fit.site for fit in Encoders(experiment).fits} == {"layer4", "random_layer4"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"randomise": {}}}, r"^randomised: expected no such section beside model\.rand"),
        ({"randomised": {"fits": [GRID | {"methods": ["x"]}]}}, r"^randomised\.fits\[0\]\.methods"),
        ({"randomised": {"seed": -1}}, r"^randomised\.seed: expected"),
        ({"randomised": {"embeddings": "x"}}, r"^randomised\.embeddings: expected one of"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], message: str):
    config = {**copy.deepcopy(TINY), "randomised": {"fits": [GRID]}}
    for key, values in changes.items():
        config[key] = {**config[key], **values}
    with pytest.raises(SettingsError, match=message):
        Experiment(config)


def test_only_a_model_of_text_has_random_weights():
    config = yaml.safe_load((ROOT / "experiments/toy-kron.yaml").read_text())
    config["randomised"] = {"fits": [GRID]}
    with pytest.raises(
        SettingsError, match=r"randomised: expected no such section for activations"
    ):
        Experiment(config)
