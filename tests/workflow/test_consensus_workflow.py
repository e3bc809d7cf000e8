"""Fits that begin from several others: which are made, and what a config may not say."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import copy_project, run_fork

from dbksvd.base.settings import SettingsError
from dbksvd.estimates.devices import DEVICES
from dbksvd.estimates.stages import estimate_stages
from workflow.experiment import Experiment, Fit

ROOT = Path(__file__).parents[2]
SIZES = {"n_atoms": [64], "k": [4]}
METHODS = {
    "dbksvd": {"algorithm": "dbksvd"},
    "agreed": {"algorithm": "consensus", "of": "dbksvd", "seeds": [0, 1, 2]},
    "polished": {"algorithm": "grown", "warm_start": "agreed"},
}


@pytest.fixture
def config() -> dict[str, Any]:
    """Return a config of samples with known features, whose fits name `polished` alone."""
    config = yaml.safe_load((ROOT / "experiments/synthetic-small.yaml").read_text())
    config["methods"] = copy.deepcopy(METHODS)
    config["fits"] = [{"methods": ["polished"], **SIZES, "seeds": [0, 1]}]
    del config["figures"]
    return config


def test_fits_that_others_begin_from_are_made_and_not_scored(config: dict[str, Any]):
    experiment = Experiment(config)
    assert {fit.method for fit in experiment.fits} == {"polished"}
    made = {(fit.method, fit.seed) for fit in experiment.made}
    assert made == {
        *(("polished", seed) for seed in (0, 1)),
        *(("agreed", seed) for seed in (0, 1)),
        *(("dbksvd", seed) for seed in range(6)),
    }
    one = Fit("synthetic", "agreed", 64, 4, 1)
    assert experiment.bases(one) == [Fit("synthetic", "dbksvd", 64, 4, s) for s in (3, 4, 5)]
    assert experiment.idle_methods == []
    assert experiment.labels["agreed"] == "DB-KSVD, signed, consensus of 3"


def test_estimate_counts_them(config: dict[str, Any]):
    experiment = Experiment(config)
    others = [fit for fit in experiment.made if fit not in experiment.fits]
    with_them, without = (
        {
            stage.name: stage.jobs
            for stage in estimate_stages(
                experiment.config, experiment.fits, None, DEVICES["cpu"], unscored=unscored
            )
        }
        for unscored in (others, [])
    )
    assert with_them["fit DB-KSVD"] == 2 + 6
    assert with_them["fit consensus"] == 2
    assert without["fit DB-KSVD"] == 2
    assert with_them["evaluate"] == without["evaluate"] == 2


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        ({"of": "dbksv"}, "of: expected a name from methods, did you mean 'dbksvd'?, got 'dbksv'"),
        ({"of": "tried"}, "of: expected a method that does not begin from this one, got 'tried'"),
        ({"of": "dbksvd", "seeds": [3]}, "seeds: expected at least 2 items, got [3]"),
        ({"of": "dbksvd", "seeds": [3, 3]}, "seeds: expected no repeats, got [3, 3]"),
        ({"of": "agreed"}, "of: expected a method whose atoms can be pooled"),
        ({"of": "random"}, "of: expected a method whose atoms can be pooled"),
        ({"of": "groups"}, "of: expected a method whose atoms can be pooled"),
    ],
)
def test_what_cannot_be_pooled_is_named(
    config: dict[str, Any], method: dict[str, Any], problem: str
):
    config["methods"] |= {
        "tried": {"algorithm": "consensus", **method},
        "random": {"algorithm": "random"},
        "groups": {"algorithm": "dbksvd", "groups": 8},
    }
    with pytest.raises(SettingsError) as caught:
        Experiment(config)
    [found] = caught.value.problems
    assert found.startswith(f"methods.tried.{problem}")


def test_seeds_and_sizes_of_fits_that_no_grid_names_are_checked(config: dict[str, Any]):
    config["fits"][0] |= {"methods": ["agreed"], "seeds": [14]}  # 14 · 3 is the model's seed 42
    with pytest.raises(
        SettingsError, match=r"^methods\.dbksvd: .* than the synthetic model, got 42$"
    ):
        Experiment(config)
    config["fits"][0]["seeds"] = [2**32 - 1]
    with pytest.raises(
        SettingsError, match=r"^methods\.dbksvd: expected seeds up to 4294967295 in"
    ):
        Experiment(config)
    config["fits"][0] |= {"seeds": [0], "n_atoms": [7000]}
    with pytest.raises(
        SettingsError, match=r"^methods\.agreed\.seeds: expected at most 20000 pooled"
    ):
        Experiment(config)


def test_bases_are_inputs_of_the_fit(config: dict[str, Any], tmp_path: Path):
    folder = copy_project(tmp_path / "project")
    (folder / "agreed.yaml").write_text(yaml.safe_dump(config))
    seal = "results/synthetic-small/synthetic/dictionaries/agreed/m64-k4-s1/fit.json"
    run = ("--dry-run", "--printshellcmds", "--", seal)
    status, output = run_fork(folder, *run, config="agreed.yaml")
    assert status == 0, output
    job = next(
        part
        for part in output.split("rule fit_dictionary:")
        if "output: " in part and "agreed/m64-k4-s1/cfg.json" in part
    )
    inputs = re.search(r"input: (.*)", job).group(1)
    bases = re.findall(r"dictionaries/(\S+)/m64-k4-s(\d+)/fit\.json", inputs)
    assert bases == [("dbksvd", "3"), ("dbksvd", "4"), ("dbksvd", "5")]
    [option] = re.findall(r"--bases (.*?) --n-atoms", " ".join(job.split()))
    assert [Path(path).name for path in option.split()] == ["m64-k4-s3", "m64-k4-s4", "m64-k4-s5"]
    assert len(re.findall(r"rule fit_dictionary:", output)) == 4
