"""SAEBench and sae-probes are imported without their catalogues, and work as before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
import pandas
read, seen = pandas.read_csv, []
pandas.read_csv = lambda *a, **k: seen.append(a) or read(*a, **k)
from dbksvd.evaluation.saebench.shims.imports import RowCounts, import_quickly
import_quickly()
import_quickly()
assert len(seen) <= 1, seen  # the list of data sets, and none of them
from sae_bench.sae_bench_utils import sae_selection_utils
from sae_lens.loading import pretrained_saes_directory as directory
assert sae_selection_utils.get_pretrained_saes_directory is directory.get_pretrained_saes_directory
assert sae_selection_utils.get_saes_from_regex("nothing", "nothing") == []
assert len(directory.get_pretrained_saes_directory()) > 10
from sae_probes import DATASETS, run_baselines, utils_data
for name in ("run_baselines", "run_sae_evals"):
    assert isinstance(sys.modules[f"sae_probes.{name}"].DATASET_SIZES, RowCounts)
assert list(RowCounts()) == DATASETS and len(RowCounts()) == len(DATASETS)
name = "96_spam_is"
assert run_baselines.DATASET_SIZES[name] == utils_data.get_dataset_sizes()[name]
"""


@pytest.mark.slow
def test_catalogues_are_read_when_asked_for():
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "JAXTYPING_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
