from __future__ import annotations

import numpy as np
import pytest
import torch
from features_helpers import write_dictionary
from sklearn.metrics import roc_auc_score

from dbksvd.base.files import hash_files, write_json
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.features.probes import Probes, score_probes

SETS = ["96_spam_is", "105_click_bait"]


def prepare(folder, *, rows=100, name="sparse_probing_sae_probes"):
    """Write what the eval prepares: random activations of the texts of two data sets."""
    activations = folder / "model_activations_tiny"
    activations.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    for dataset in SETS:
        x = torch.randn(rows, 16, generator=draw)
        torch.save(x, activations / f"{dataset}_blocks.1.hook_resid_post.pt")
    settings = {"datasets": SETS, "rows": 100}
    manifest = {"eval": name, "settings": settings, "sha256": hash_files(folder)}
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.mark.parametrize("nonnegative", [True, False])
def test_areas_are_those_of_scikit_learn(nonnegative, tmp_path):
    probes = Probes.open(prepare(tmp_path / "prepared"))
    assert [one["dataset"] for one in probes.names] == SETS
    dictionary = load_dictionary(
        write_dictionary(tmp_path / "dictionary", nonnegative=nonnegative, seed=1)
    )
    found = score_probes(dictionary, probes)
    areas = np.empty((50, 2))
    for number, (rows, labels) in enumerate(probes.sets):
        assert labels.sum() == 50  # both classes, as sae-probes draws them
        z = dictionary.encode(rows).to_dense().numpy()
        areas[:, number] = [roc_auc_score(labels, column) for column in z.T]
    order = np.argsort(-np.abs(areas - 0.5).round(12), axis=1, kind="stable")
    np.testing.assert_array_equal(found["probe_label"], order)
    expected = np.take_along_axis(areas, order, axis=1)
    np.testing.assert_allclose(found["probe_auc"], expected, atol=1e-6)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="eval: expected sparse_probing_sae_probes, got core"):
        Probes.open(prepare(tmp_path / "a", name="core"))
    with pytest.raises(ValueError, match="expected 100 rows, one a label, got 99"):
        Probes.open(prepare(tmp_path / "b", rows=99))
