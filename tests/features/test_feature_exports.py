from __future__ import annotations

import json

import numpy as np
import pytest
from features_helpers import SIGNED, STORED
from safetensors.numpy import load_file

from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.features.exports import FEATURES_PER_BATCH, export_activations, export_neuronpedia
from dbksvd.features.site import SiteFeatures

BATCH = {"model_id", "layer", "sae_set", "sae_id_suffix", "features"}
FEATURE = {
    "feature_index": int,
    "neuron_alignment_indices": int,
    "neuron_alignment_values": float,
    "neuron_alignment_l1": float,
    "correlated_neurons_indices": int,
    "correlated_neurons_l1": float,
    "correlated_neurons_pearson": float,
    "correlated_features_indices": int,
    "correlated_features_l1": float,
    "correlated_features_pearson": float,
    "neg_str": str,
    "neg_values": float,
    "pos_str": str,
    "pos_values": float,
    "frac_nonzero": float,
    "freq_hist_data_bar_values": float,
    "freq_hist_data_bar_heights": int,
    "logits_hist_data_bar_heights": int,
    "logits_hist_data_bar_values": float,
    "n_prompts_total": int,
    "n_tokens_in_prompt": int,
    "dataset": str,
    "activations": dict,
    "decoder_weights_dist": float,
    "vector": float,
}
ACTIVATION = {"bin_min", "bin_max", "bin_contains", "tokens", "values", "qualifying_token_index"}


@pytest.fixture(params=SIGNED)
def batches(request, folder, dictionaries, tmp_path):
    site = SiteFeatures.open(folder)
    dictionary = load_dictionary(dictionaries[request.param])
    files = export_neuronpedia(site, request.param, dictionary, tmp_path / "out", sae_set="set")
    return request.param, site, [json.loads(file.read_text()) for file in files]


def test_batches_have_neuronpedias_names_and_types(batches):
    name, site, found = batches
    n_features = site.read(name).entry["n_features"]
    assert len(found) == -(-n_features // FEATURES_PER_BATCH)
    for batch in found:
        assert set(batch) == BATCH
        assert batch["layer"] == 2
        for feature in batch["features"]:
            assert set(feature) == set(FEATURE)
            for key, kind in FEATURE.items():
                values = feature[key] if isinstance(feature[key], list) else [feature[key]]
                assert all(type(value) is kind for value in values), key
            assert all(set(activation) == ACTIVATION for activation in feature["activations"])
    numbers = [feature["feature_index"] for batch in found for feature in batch["features"]]
    assert numbers == list(range(n_features))


def test_batches_say_what_the_codes_say(batches, plain, dictionaries):
    name, site, found = batches
    z = plain[name].stack()
    atoms = load_dictionary(dictionaries[name]).atoms.numpy()
    rows = np.concatenate([atoms, -atoms]) if SIGNED[name] else atoms
    weight = 50 * [1.0] + (50 * [-1.0] if SIGNED[name] else [])
    for feature in (feature for batch in found for feature in batch["features"]):
        f = feature["feature_index"]
        np.testing.assert_allclose(feature["vector"], rows[f], atol=1e-4)
        assert feature["frac_nonzero"] == pytest.approx((z[:, f] != 0).mean())
        assert sum(feature["freq_hist_data_bar_heights"]) == (z[:, f] != 0).sum()
        counted = z[:150] != 0
        for other, pearson in zip(
            feature["correlated_features_indices"],
            feature["correlated_features_pearson"],
            strict=True,
        ):
            expected = np.corrcoef(counted[:, f], counted[:, other])[0, 1]
            assert pearson == pytest.approx(expected, abs=1e-3)
        assert feature["pos_values"] == sorted(feature["pos_values"], reverse=True)
        assert feature["neg_values"] == sorted(feature["neg_values"])
        assert feature["logits_hist_data_bar_values"] == sorted(
            feature["logits_hist_data_bar_values"]
        )
        own = site.describe_atom(site.read(name), f % 50)["logits"]
        raised = own["raised"] if weight[f] > 0 else own["lowered"]
        assert feature["pos_str"] == [row["text"] for row in raised]
        for activation in feature["activations"]:
            place = activation["qualifying_token_index"]
            assert activation["values"][place] == max(activation["values"])
            assert len(activation["values"]) == len(activation["tokens"])
            assert activation["values"][place] <= activation["bin_max"] + 1e-3
        top = [a for a in feature["activations"] if a["bin_contains"] == -1]
        if top:
            assert top[0]["bin_max"] == pytest.approx(z[:, f].max(), abs=1e-3)


def test_sae_dashboard_reads_the_batches(batches):
    """sae-dashboard is installed without its dependencies; the class needs NumPy only."""
    dashboard = pytest.importorskip(
        "sae_dashboard.neuronpedia.neuronpedia_dashboard",
        reason="sae-dashboard is not installed (tests/requirements.txt)",
    )
    for batch in batches[2]:
        assert dashboard.NeuronpediaDashboardBatch(**batch).to_dict() == batch


@pytest.mark.parametrize("name", SIGNED)
def test_activations_are_those_of_the_examples(name, folder, plain, tmp_path):
    export_activations(SiteFeatures.open(folder), name, tmp_path / "examples.safetensors")
    found, codes = load_file(tmp_path / "examples.safetensors"), plain[name]
    for row, document in enumerate(found["documents"].tolist()):
        ids = codes.ids[codes.documents.index(document)]
        assert found["lengths"][row] == len(ids)
        assert found["tokens"][row].tolist() == ids.tolist() + [0] * (
            found["tokens"].shape[1] - len(ids)
        )
    rows, places, features = found["locations"].T
    assert len(np.unique(found["locations"], axis=0)) == len(rows)
    expected = [
        codes.dense[codes.documents.index(found["documents"][row])][place, feature]
        for row, place, feature in zip(rows, places, features, strict=True)
    ]
    np.testing.assert_allclose(found["activations"], expected, rtol=STORED + 1e-5)
    assert set(features.tolist()) == set(np.flatnonzero(codes.stack().any(axis=0)).tolist())


def test_another_dictionary_is_refused(folder, dictionaries, tmp_path):
    site = SiteFeatures.open(folder)
    other = load_dictionary(dictionaries["topk/m50-k6-s0"])
    other.sae.W_dec.data = other.sae.W_dec.data[:9]
    with pytest.raises(ValueError, match=r"expected atoms of shape \(50, 16\), got \(9, 16\)"):
        export_neuronpedia(site, "dbksvd/m50-k6-s0", other, tmp_path / "x", sae_set="s")
    with pytest.raises(ValueError, match="dictionary: expected one of dbksvd/m50"):
        export_activations(site, "none", tmp_path / "x.safetensors")
