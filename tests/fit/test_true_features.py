"""The control whose atoms are the true features."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from rows import Rows

from dbksvd.base.settings import SettingsError, parse
from dbksvd.evaluation.heldout import measure_dictionary
from dbksvd.fit.baselines.true_features import METHOD, fit
from dbksvd.fit.task import FitTask
from dbksvd.synthetic.models import load_model, make_model, save_model
from workflow.experiment import Experiment

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "kind": "expert_mixture",
    "num_components": 3,
    "features_per_component": 7,
    "hidden_dim": 24,
    "subspace_dim": 8,
    "k": 2,
    "magnitude": [1.0, 0.2],
    "component_magnitude": 1.0,
    "bias": 2.0,
}


def make_task(folder: Path, n_atoms: int, k: int = 3) -> FitTask:
    save_model(make_model(SETTINGS), SETTINGS, folder)
    model = load_model(folder)
    torch.manual_seed(1)
    x = model.embed(model.draw_codes(600)[0])
    return FitTask(
        train=Rows(x[:300]),
        heldout=Rows(x[300:]),
        n_atoms=n_atoms,
        k=k,
        seed=0,
        settings=parse(METHOD.settings, {"algorithm": "true_features"}),
        device=torch.device("cpu"),
        checkpoint=folder / "work",
        truth=folder,
    )


def test_true_features_explain_what_they_made(tmp_path: Path):
    task = make_task(tmp_path, n_atoms=24)
    dictionary = fit(task).dictionary
    model = load_model(tmp_path)
    assert torch.equal(dictionary.atoms, model.features)
    assert torch.equal(dictionary.bias, model.bias)
    found = measure_dictionary(dictionary, task.heldout.read(0, 300))
    assert found["explained_variance"] > 0.97  # what is missed is the pursuit's
    assert METHOD.makes_control(task.settings)


def test_fewer_atoms_are_the_first_features_and_more_are_refused(tmp_path: Path):
    task = make_task(tmp_path, n_atoms=10)
    assert torch.equal(fit(task).dictionary.atoms, load_model(tmp_path).features[:10])
    task.n_atoms = 25
    with pytest.raises(ValueError, match=r"^n_atoms: expected at most the 24 features, got 25$"):
        fit(task)


def test_it_is_refused_where_features_are_not_known():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["methods"]["truth"] = {"algorithm": "true_features"}
    grid = {"methods": ["truth"], "n_atoms": [128], "k": [7], "seeds": [0]}
    known = copy.deepcopy(config)
    known["ground_truth"]["fits"].append(grid)
    assert "truth" in {fit.method for fit in Experiment(known).fits}
    known["ground_truth"]["fits"][-1] = grid | {"n_atoms": [513]}
    with pytest.raises(
        SettingsError, match=r"fits\[\d\]\.n_atoms: expected at most the 512 features"
    ):
        Experiment(known)
    config["fits"].append(grid)
    place = len(config["fits"]) - 1
    with pytest.raises(
        SettingsError, match=rf"^fits\[{place}\]\.methods: expected truth in ground"
    ):
        Experiment(config)
