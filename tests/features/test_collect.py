from __future__ import annotations

import numpy as np
import pytest
import torch
from features_helpers import (
    N_ATOMS,
    SETTINGS,
    SIGNED,
    STORED,
    PlainCodes,
    code_plainly,
    describe_activations,
    write_dictionary,
)

from dbksvd.base.files import DamagedFileError, hash_files
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.features.collect import collect_examples
from dbksvd.features.site import AtomArrays, SiteFeatures
from dbksvd.features.text_contexts import TextContexts


@pytest.fixture(params=SIGNED)
def case(request, folder, plain) -> tuple[AtomArrays, PlainCodes]:
    return SiteFeatures.open(folder).read(request.param), plain[request.param]


def test_counts_means_and_histograms_are_those_of_all_tokens(case):
    arrays, codes = case
    a, z = arrays.arrays, codes.stack()
    assert z.shape[1] == arrays.entry["n_features"] == len(a["count"])
    np.testing.assert_array_equal(a["count"], (z != 0).sum(axis=0))
    fires = np.array([(values != 0).any(axis=0) for values in codes.dense])
    np.testing.assert_array_equal(a["context_count"], fires.sum(axis=0))
    np.testing.assert_allclose(a["total"], z.astype(np.float64).sum(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a["maximum"], z.max(axis=0), rtol=1e-5)
    assert (a["histogram_count"].sum(axis=1) == a["count"]).all()
    for feature, column in enumerate(z.T):
        values, top = column[column != 0], a["histogram_top"][feature]
        assert len(values) == 0 or values.max() < top <= 2 * values.max()
        if len(values):
            # values within rounding of an edge may fall on either side
            edges = np.linspace(0, top, 65)
            distance = np.abs(values[:, None] - edges).min(axis=1)
            expected = np.histogram(values, edges)[0]
            unsure = int((distance < 1e-5 * top).sum())
            assert np.abs(a["histogram_count"][feature] - expected).sum() <= 2 * unsure


def test_tokens_it_fires_on_most(case):
    arrays, codes = case
    z, tokens = codes.stack(), codes.stack_tokens()
    assert arrays.entry["token_error"] == 0
    for feature, column in enumerate(z.T):
        ids, counts = np.unique(tokens[column != 0], return_counts=True)
        order = np.lexsort((ids, -counts))[:5]
        listed = arrays.arrays["token_id"][feature]
        assert listed[listed >= 0].tolist() == ids[order].tolist()
        assert (
            arrays.arrays["token_count"][feature][: len(order)].tolist() == counts[order].tolist()
        )
        sums = [column[tokens == token].sum() for token in ids[order]]
        total = arrays.arrays["token_total"][feature][: len(order)]
        np.testing.assert_allclose(total, sums, rtol=STORED + 1e-5)


def test_coactive_features_by_jaccard_index(case):
    arrays, codes = case
    a, active = arrays.arrays, codes.stack()[:150] != 0
    both = active.T.astype(int) @ active.astype(int)
    single = active.sum(axis=0)
    np.testing.assert_array_equal(a["coactive_base"], single)
    for feature in range(len(both)):
        either = single[feature] + single - both[feature]
        jaccard = both[feature] / np.maximum(either, 1)
        jaccard[feature] = 0
        order = np.lexsort((np.arange(len(both)), -jaccard))[:4]
        order = order[jaccard[order] > 0]
        found = a["coactive_feature"][feature][: len(order)]
        assert found.tolist() == order.tolist()
        assert (a["coactive_feature"][feature][len(order) :] == -1).all()
        rows = slice(0, len(order))
        assert (a["coactive_count"][feature][rows] == both[feature][order]).all()
        np.testing.assert_allclose(a["coactive_jaccard"][feature][rows], jaccard[order], rtol=1e-6)
        conditional = both[feature][order] / max(single[feature], 1)
        np.testing.assert_allclose(a["coactive_conditional"][feature][rows], conditional, rtol=1e-6)


def test_top_contexts_are_the_largest_with_their_coefficients(case, folder):
    arrays, codes = case
    site = SiteFeatures.open(folder)
    for feature in range(arrays.entry["n_features"]):
        peaks = np.array([values[:, feature].max() for values in codes.dense])
        order = np.argsort(-peaks, kind="stable")[:6]
        order = order[peaks[order] > 0]
        examples = [site.describe_example(arrays, n) for n in arrays.list_examples(feature)]
        top = [example for example in examples if example["group"] == 0]
        np.testing.assert_allclose([e["peak"] for e in top], peaks[order], rtol=STORED + 1e-5)
        for example in examples:
            i = codes.documents.index(example["document"])
            column = codes.dense[i][:, feature]
            place = example["position"]
            np.testing.assert_allclose(column[place], column.max(), rtol=1e-5)
            first, stop = max(place - 3, 0), min(place + 3, len(column))
            assert example["first"] == first
            np.testing.assert_allclose(
                example["values"], column[first:stop], rtol=STORED + 1e-5, atol=1e-6
            )
            assert len(example["tokens"]) == stop - first
            ids = codes.ids[i][first:stop]
            assert example["tokens"] == [site.tokens[int(token)] for token in ids]


def test_groups_are_a_sample_of_all_contexts_cut_by_peak(case):
    arrays, codes = case
    a = arrays.arrays
    for feature in range(arrays.entry["n_features"]):
        fires = [
            d for d, v in zip(codes.documents, codes.dense, strict=True) if v[:, feature].any()
        ]
        rows = np.array(arrays.list_examples(feature), int)
        rows = rows[a["example_group"][rows] > 0]
        size = min(len(fires), 6)
        assert len(rows) == size
        documents = a["example_document"][rows].tolist()
        assert len(set(documents)) == size
        assert set(documents) <= set(fires)
        assert (np.diff(a["example_peak"][rows]) <= 0).all()
        groups = a["example_group"][rows].tolist()
        assert groups == [1, 1, 2, 2, 3, 3] if size == 6 else groups == sorted(groups)


def test_every_context_is_equally_likely_in_the_groups(folder, plain):
    """Over all features of all dictionaries: the mean place of sampled contexts is the middle."""
    places = []
    for name, codes in plain.items():
        arrays = SiteFeatures.open(folder).read(name)
        for feature in range(arrays.entry["n_features"]):
            fires = [
                d for d, v in zip(codes.documents, codes.dense, strict=True) if v[:, feature].any()
            ]
            rows = [n for n in arrays.list_examples(feature)
                    if arrays.arrays["example_group"][n] > 0]  # fmt: skip
            if len(fires) > 12:
                found = arrays.arrays["example_document"][rows]
                places += [(fires.index(d) + 0.5) / len(fires) for d in found]
    assert len(places) > 300
    assert abs(np.mean(places) - 0.5) < 4 * (1 / 12 / len(places)) ** 0.5


def test_nearest_atoms_of_every_dictionary(folder, dictionaries):
    site = SiteFeatures.open(folder)
    atoms = {name: load_dictionary(path).atoms.double() for name, path in dictionaries.items()}
    for name, own in atoms.items():
        arrays = site.read(name).arrays
        for number, (other, others) in enumerate(atoms.items()):
            cosines = (own @ others.T).numpy()
            score = np.abs(cosines) if SIGNED[name] or SIGNED[other] else cosines.copy()
            if name == other:
                np.fill_diagonal(score, -np.inf)
            order = np.argsort(-score, axis=1, kind="stable")[:, :3]
            np.testing.assert_array_equal(arrays["nearest_atom"][:, number], order)
            expected = np.take_along_axis(cosines, order, axis=1)
            np.testing.assert_allclose(arrays["nearest_cosine"][:, number], expected, atol=STORED)


def test_logit_effects_are_the_unembedding_of_the_weighted_atom(folder, dictionaries, source):
    model = source.loaded.model
    weight = model.gpt_neox.final_layer_norm.weight.double()
    for name, path in dictionaries.items():
        atoms = load_dictionary(path).atoms.double()
        effects = ((atoms * weight) @ model.lm_head.weight.double().T).numpy()
        arrays = SiteFeatures.open(folder).read(name).arrays
        order = np.argsort(-effects, axis=1)
        listed = np.concatenate([order[:, :10], order[:, ::-1][:, :10]], axis=1)
        np.testing.assert_array_equal(arrays["logit_token"], listed)
        expected = np.take_along_axis(effects, listed, axis=1)
        np.testing.assert_allclose(arrays["logit_value"], expected, rtol=STORED + 1e-5, atol=1e-5)
        assert (arrays["logit_histogram_count"].sum(axis=1) == effects.shape[1]).all()
        ends = np.stack([effects.min(axis=1), effects.max(axis=1)], axis=1)
        np.testing.assert_allclose(arrays["logit_histogram_edges"], ends, atol=1e-5)


def test_neurons_and_map(folder, dictionaries):
    for name, path in dictionaries.items():
        arrays = SiteFeatures.open(folder).read(name).arrays
        atoms = load_dictionary(path).atoms.numpy()
        order = np.argsort(-np.abs(atoms), axis=1, kind="stable")[:, :10]
        np.testing.assert_array_equal(arrays["neuron_index"], order)
        values = np.take_along_axis(atoms, order, axis=1)
        np.testing.assert_allclose(arrays["neuron_value"], values, rtol=STORED + 1e-5)
        assert arrays["map"].shape == (N_ATOMS, 2)
        assert np.abs(arrays["map"]).max() == 1
        assert len(np.unique(arrays["map"], axis=0)) == N_ATOMS


def test_same_input_same_bytes(source, dictionaries, folder, tmp_path):
    collect_examples(source, dictionaries, SETTINGS, tmp_path / "again")
    assert hash_files(tmp_path / "again") == hash_files(folder)


def test_a_killed_job_goes_on_and_writes_the_same_bytes(
    source, dictionaries, tmp_path, monkeypatch
):
    monkeypatch.setattr(source, "window", 6)
    collect_examples(source, dictionaries, SETTINGS, tmp_path / "whole")
    iterate = TextContexts.iterate
    calls: list[int] = []

    def die_at_third(self, start):
        calls.append(start)
        for number, contexts in enumerate(iterate(self, start)):
            if len(calls) == 1 and number == 2:
                raise KeyboardInterrupt
            yield contexts

    monkeypatch.setattr(TextContexts, "iterate", die_at_third)
    job = {"checkpoints": tmp_path / "checkpoints", "checkpoint_seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        collect_examples(source, dictionaries, SETTINGS, tmp_path / "out", **job)
    assert not (tmp_path / "out").exists()
    collect_examples(source, dictionaries, SETTINGS, tmp_path / "out", **job)
    assert calls == [0, 12]
    assert hash_files(tmp_path / "out") == hash_files(tmp_path / "whole")
    assert not list((tmp_path / "checkpoints").iterdir())


def test_rows_over_the_norm_limit_are_left_out(source, dictionaries, tmp_path):
    name = "signed/m50-k6-s0"
    everything = code_plainly(source, load_dictionary(dictionaries[name]), signed=True)
    norms = [torch.linalg.vector_norm(c.activations, dim=1) for c in source.iterate(0)]
    limit = float(torch.cat(norms).quantile(0.8))
    codes = code_plainly(source, load_dictionary(dictionaries[name]), signed=True, norm_limit=limit)
    left_out = len(everything.stack()) - len(codes.stack())
    assert 0 < left_out < len(everything.stack()) / 2
    one = {name: dictionaries[name]}
    manifest = collect_examples(source, one, SETTINGS, tmp_path / "site", norm_limit=limit)
    assert manifest["data"]["left_out_tokens"] == left_out
    assert manifest["data"]["tokens"] == len(codes.stack())
    a = SiteFeatures.open(tmp_path / "site").read(name).arrays
    np.testing.assert_array_equal(a["count"], (codes.stack() != 0).sum(axis=0))
    np.testing.assert_allclose(a["maximum"], codes.stack().max(axis=0), rtol=1e-5)
    assert manifest["settings"]["norm_limit"] == limit


def test_no_document_begins_after_n_tokens(source, dictionaries, tmp_path):
    name = "dbksvd/m50-k6-s0"
    settings = SETTINGS | {"n_tokens": 100}
    manifest = collect_examples(source, {name: dictionaries[name]}, settings, tmp_path / "site")
    sizes = np.cumsum([len(document.kept) for document in source.tokenize()])
    read = int(np.searchsorted(sizes, 100)) + 1
    assert manifest["data"]["contexts"] == read
    assert manifest["data"]["tokens"] == sizes[read - 1]


def test_damage_is_named(source, dictionaries, tmp_path):
    name = "dbksvd/m50-k6-s0"
    collect_examples(source, {name: dictionaries[name]}, SETTINGS, tmp_path / "site")
    (tmp_path / "site/tokens.json").write_text("{}")
    with pytest.raises(DamagedFileError, match=r"tokens\.json: expected sha256"):
        SiteFeatures.open(tmp_path / "site")
    with pytest.raises(ValueError, match="dictionaries: expected at least 1, got none"):
        collect_examples(source, {}, SETTINGS, tmp_path / "none")
    (tmp_path / "site/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"expected a new folder, .* got notes\.txt"):
        collect_examples(source, {name: dictionaries[name]}, SETTINGS, tmp_path / "site")
    wide = {"wide/m50-k6-s0": write_dictionary(tmp_path / "wide", nonnegative=True, seed=1, d=8)}
    with pytest.raises(ValueError, match=r"wide/m50-k6-s0: expected atoms of width 16, .* got 8"):
        collect_examples(source, wide, SETTINGS, tmp_path / "none")


def test_an_encoder_has_no_logit_effects(tiny_encoder, text_folder, dictionaries, tmp_path):
    source = TextContexts(describe_activations(tiny_encoder), text_folder)
    name = "topk/m50-k6-s0"
    collect_examples(source, {name: dictionaries[name]}, SETTINGS, tmp_path / "site")
    site = SiteFeatures.open(tmp_path / "site")
    arrays = site.read(name)
    described = site.describe_atom(arrays, 0)
    assert "logits" not in described
    # [CLS] and [SEP] are shown, and never coded
    assert all(
        example["values"][0] == 0
        for example in described["sides"][0]["examples"]
        if example["first"] == 0
    )
    codes = code_plainly(source, load_dictionary(dictionaries[name]), signed=False)
    np.testing.assert_array_equal(arrays.arrays["count"], (codes.stack() != 0).sum(axis=0))
    assert torch.is_tensor(load_dictionary(dictionaries[name]).atoms)
