from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from features_helpers import describe_activations, write_dictionary, write_sae

from dbksvd import ActivationShards, find_top_contexts, load_dictionary
from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.sharding import write_shards
from dbksvd.features.explain import explain_text
from dbksvd.models.loading import load_model
from dbksvd.text.documents import iterate_documents, prepare_text

ATOMS = [0, 7, 31]


@pytest.fixture(scope="module")
def shards_folder(tiny_encoder, text_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    settings = describe_activations(tiny_encoder, tokens_per_document=4, n_heldout_tokens=120)
    extract_slice(settings, 0, folder / "part-0.h5", text=text_folder)
    write_shards([folder / "part-0.h5"], {"rows_per_shard": 50, "seed": 0}, folder / "shards")
    return folder / "shards"


@pytest.mark.parametrize("kind", ["nonnegative", "signed", "sae"])
def test_top_contexts_are_those_of_the_rows(kind, shards_folder, text_folder, tmp_path):
    if kind == "sae":
        folder = write_sae(tmp_path / "d", seed=3)
    else:
        folder = write_dictionary(tmp_path / "d", nonnegative=kind == "nonnegative", seed=1)
    # what a newcomer writes
    shards = ActivationShards.open(shards_folder, "heldout")
    dictionary = load_dictionary(folder)
    contexts = find_top_contexts(dictionary, shards, ATOMS, text=text_folder, n=3)

    labels, x = shards.read_labels(0, len(shards)), shards.read(0, len(shards))
    z = dictionary.encode(x).to_dense().numpy()
    expected = []
    for atom in ATOMS:
        for sign in (1, -1) if kind == "signed" else (1,):
            best: dict[int, tuple[float, int]] = {}
            for row in np.argsort(-sign * z[:, atom], kind="stable"):
                if sign * z[row, atom] > 0:
                    best.setdefault(int(labels.document[row]), (float(z[row, atom]), int(row)))
            expected += [(atom, *pair) for pair in list(best.values())[:3]]
    assert [(c.atom, c.value) for c in contexts] == [pair[:2] for pair in expected]
    texts = {
        document.index: document.text for document in iterate_documents(text_folder, "heldout")
    }
    at = {(int(d), int(p)): row for row, (d, p) in enumerate(zip(*labels[:2], strict=True))}
    for context, (atom, _, row) in zip(contexts, expected, strict=True):
        place = (context.document, context.position, context.token)
        assert place == tuple(int(array[row]) for array in labels)
        words = texts[context.document].split()
        # the special token before the text, words of the text, at most 10 tokens in all
        shown = ["[CLS]", *(f" {word}" for word in words[:8]), "[SEP]"]
        assert context.tokens == shown[context.first :]
        peak = context.position - context.first
        assert f"[{shown[context.position]}]" in str(context)
        assert context.values[peak] == pytest.approx(context.value)
        for number, value in enumerate(context.values, context.first):
            other = at.get((context.document, number))
            assert (
                np.isnan(value) if other is None else value == pytest.approx(float(z[other, atom]))
            )


def test_bad_input_is_named(shards_folder, text_folder, make_sentences, tmp_path):
    shards = ActivationShards.open(shards_folder, "heldout")
    dictionary = load_dictionary(write_dictionary(tmp_path / "d", nonnegative=True, seed=1))
    with pytest.raises(ValueError, match=r"atoms: expected numbers from 0 to 49, got \[50, -1\]"):
        find_top_contexts(dictionary, shards, [50, 3, -1])
    wide = load_dictionary(write_dictionary(tmp_path / "e", nonnegative=True, seed=1, d=8))
    with pytest.raises(ValueError, match="shards: expected width 8, the dictionary's, got 16"):
        find_top_contexts(wide, shards, [3])
    (tmp_path / "other.txt").write_text("\n".join(make_sentences(50, seed=9)))
    source = {"kind": "file", "path": str(tmp_path / "other.txt")}
    prepare_text({"sources": [source], "max_documents": 50}, tmp_path / "text")
    with pytest.raises(ValueError, match="text: expected the documents of the shards, sha256"):
        find_top_contexts(dictionary, shards, [3], text=tmp_path / "text")
    assert find_top_contexts(dictionary, shards, [3])[0].tokens == []


def test_explained_text_has_the_codes_of_each_token(tiny_encoder, tmp_path):
    loaded = load_model({"name": str(tiny_encoder)})
    folders = {
        "signed": write_dictionary(tmp_path / "signed", nonnegative=False, seed=2),
        "sae": write_sae(tmp_path / "sae", seed=3),
    }
    texts = ["the dog sees a cat", "red <script> bird", "tree"]
    explained = explain_text(texts, folders, loaded, layer=2, context_length=5)
    assert [one["text"] for one in explained] == texts
    assert explained[0]["tokens"] == ["[CLS]", " the", " dog", " sees", "[SEP]"]
    assert explained[2]["coded"] == [False, True, False]
    for text, one in zip(texts, explained, strict=True):
        ids = loaded.tokenizer(text, truncation=True, max_length=5)["input_ids"]
        assert one["ids"] == ids
        with torch.no_grad():
            out = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]
        for name, folder in folders.items():
            z = load_dictionary(folder).encode(out).to_dense().numpy()
            for place, pairs in enumerate(one["atoms"][name]):
                if not one["coded"][place]:
                    assert pairs == []
                    continue
                order = np.argsort(-np.abs(z[place]), kind="stable")[: (z[place] != 0).sum()]
                assert [atom for atom, _ in pairs] == order.tolist()
                np.testing.assert_allclose([v for _, v in pairs], z[place][order], rtol=1e-5)
    with pytest.raises(ValueError, match=r"texts: expected .* got empty ones at \[1\]"):
        explain_text(["a", " \n"], folders, loaded, layer=2)
    with pytest.raises(ValueError, match="layer: expected 0 to 3, got 9"):
        explain_text(["a"], folders, loaded, layer=9)
    wide = {"wide": write_dictionary(tmp_path / "wide", nonnegative=True, seed=1, d=8)}
    with pytest.raises(ValueError, match=r"wide: expected width 16, the activations' at .* got 8"):
        explain_text(["a"], wide, loaded, layer=2)


def test_the_page_runs(shards_folder, text_folder, tmp_path, monkeypatch, capsys):
    """The first block of docs/pages.md, on a small site laid out as results are."""
    page = (Path(__file__).parents[2] / "docs/pages.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    site = tmp_path / "results/minilm/layer4"
    site.mkdir(parents=True)
    (site / "shards").symlink_to(shards_folder)
    (tmp_path / "results/minilm/text").symlink_to(text_folder)
    write_dictionary(site / "dictionaries/dbksvd/m512-k16-s0", nonnegative=True, seed=1)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/pages.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all("[" in line and line.startswith(("atom 3 ", "atom 17 ")) for line in lines)
