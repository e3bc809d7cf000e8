"""Seconds of a fit are those of its work: kernels are compiled before its clock starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dbksvd.dictionaries.dictionary import PursuitSettings
from dbksvd.fit.warm_up import KernelUse, warm_up

SCRIPT = Path(__file__).with_name("timed_fit.py")
ROOT = Path(__file__).parents[2]
DBKSVD = {"algorithm": "dbksvd", "max_iter": 2, "heldout_every": 1}
# compiling takes seconds: less than one of them is nobody's compilation
SLACK = 0.4
FITS = [
    DBKSVD | {"nonnegative": True},
    DBKSVD | {"pursuit": "mp", "sparsity": "mean"},
    DBKSVD | {"pursuit": "omp", "groups": 8, "init": "doubling"},
    {"algorithm": "ksvd", "max_iter": 1},
    {"algorithm": "grown"},
    {"algorithm": "itda"},
    {"algorithm": "kmeans"},
    {"algorithm": "sae", "architecture": "topk", "training_samples": 4096},
]


def time_fit(settings: dict, cache: Path) -> dict:
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(cache),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(SCRIPT.parent)]),
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(settings)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", FITS, ids=lambda settings: "-".join(map(str, settings.values()))
)
def test_a_first_fit_takes_the_seconds_of_a_second(settings, tmp_path):
    first, second = time_fit(settings, tmp_path), time_fit(settings, tmp_path)
    assert first["seconds"] <= 2 * second["seconds"] + SLACK
    # and so do the points of its convergence curve, from the first on
    times = [[row["seconds"] for row in fit["log"]] for fit in (first, second)]
    assert len(times[0]) == len(times[1])
    for early, late in zip(*times, strict=True):
        assert early <= 2 * late + SLACK


def test_warming_up_draws_no_random_number_of_the_fit():
    use = KernelUse(PursuitSettings(3, "ols", penalties=None), 24, 16, 8, 3)
    state = torch.get_rng_state()
    for implementation in ("cpu", "batched", "reference"):
        warm_up([use], torch.device("cpu"), implementation=implementation)
    assert torch.equal(torch.get_rng_state(), state)
