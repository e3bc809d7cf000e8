"""factual_knowledge on a planted model: each attribute lies in a subspace that is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_facts import CITIES, FACTS, LAYER, WIDTH, save_planted_model, write_ravel

from dbksvd.base.settings import SettingsError, parse
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation.facts.bases import Rotation
from dbksvd.evaluation.facts.blocks import CutModel
from dbksvd.evaluation.facts.interventions import draw_pairs
from dbksvd.evaluation.facts.known import read_facts, read_known
from dbksvd.evaluation.facts.prompts import choose_examples, count_shared, write_prompts
from dbksvd.evaluation.saebench.checks import check_evals
from dbksvd.evaluation.saebench.evals.factual_knowledge import FactualKnowledgeSettings
from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.preparation import prepare_eval
from dbksvd.evaluation.saebench.registry import parse_evals
from dbksvd.evaluation.saebench.results import read_metrics, read_parts
from dbksvd.evaluation.saebench.runner import run_evals
from dbksvd.models.loading import load_model

NAME = "factual_knowledge"
SITE = EvalSite("planted", LAYER, 0, "causal")
SETTINGS = {
    **{"shots": 2, "pairs": 100, "epochs": 20, "mask_rate": 0.01, "rotation_rate": 0.003},
    "prompts": 2,
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> dict[str, Any]:
    """Return the model, its directions, the settings and the folder where it was asked."""
    folder = tmp_path_factory.mktemp("planted")
    directions = save_planted_model(folder / "lm")
    settings = parse(
        FactualKnowledgeSettings, {**SETTINGS, "data": str(write_ravel(folder / "ravel"))}
    )
    loaded = load_model({"name": str(folder / "lm"), "device": "cpu"})
    prepared = folder / "prepared" / NAME
    prepared.mkdir(parents=True)
    prepare_eval(NAME, loaded, SITE, settings, prepared)
    return {
        **{"folder": folder, "loaded": loaded, "directions": directions, "settings": settings},
        "prepared": prepared,
    }


def score(planted: dict[str, Any], atoms: torch.Tensor, name: str, **pursuit: Any) -> Path:
    """Return the folder of the scores of a dictionary."""
    folder = planted["folder"] / name
    Dictionary(atoms, torch.zeros(WIDTH), PursuitSettings(**pursuit)).save(folder / "dictionary")
    run_evals(
        folder / "dictionary",
        {NAME: planted["settings"]},
        planted["prepared"].parent,
        folder / "scores",
        load_model=lambda: planted["loaded"],
    )
    return folder / "scores" / NAME


@pytest.fixture(scope="module")
def whole_scores(planted) -> Path:
    """Return the folder of the scores of the planted directions themselves."""
    return score(planted, planted["directions"], "planted", k=WIDTH)


def test_das_and_the_planted_directions_separate_and_random_atoms_do_not(planted, whole_scores):
    whole = read_metrics(whole_scores)
    assert whole["applicable"] == 1
    assert whole["entities_known"] == whole["entities_asked"] == len(CITIES) - 2
    assert whole["das_disentanglement_score"] > 0.97
    assert whole["disentanglement_score"] > 0.97
    assert whole["spliced_accuracy"] == 1
    assert 0.6 < whole["neurons_disentanglement_score"] < 0.95  # the subspaces are no axes
    assert whole["full_patch_cause_score"] == 1
    assert whole["full_patch_isolation_score"] == 0
    torch.manual_seed(1)
    atoms = torch.nn.functional.normalize(torch.randn(64, WIDTH), dim=1)
    random = read_metrics(score(planted, atoms, "random", k=4, nonnegative=True))
    assert random["spliced_accuracy"] < 0.9
    assert random["disentanglement_score"] == pytest.approx(0.5, abs=0.12)
    for metric in ("das_disentanglement_score", "neurons_cause_score"):
        assert random[metric] == whole[metric]


def test_scores_are_means_over_attributes_and_come_again(planted, whole_scores):
    parts, metrics = read_parts(whole_scores), read_metrics(whole_scores)
    assert set(parts["cause_score"]) == {"Country", "Continent"}
    for metric in ("cause_score", "isolation_score", "disentanglement_score"):
        assert metrics[metric] == pytest.approx(sum(parts[metric].values()) / 2)
    both = (metrics["cause_score"] + metrics["isolation_score"]) / 2
    assert metrics["disentanglement_score"] == pytest.approx(both)
    second = read_metrics(score(planted, planted["directions"], "again", k=WIDTH))
    assert second == metrics


def test_entities_are_split_and_examples_are_not_asked_for(planted):
    facts, known = read_facts(planted["prepared"]), read_known(planted["prepared"])
    assert not set(facts["train"]) & set(facts["test"])
    assert sorted(facts["train"] + facts["test"]) == list(range(len(facts["entities"])))
    assert not set(facts["examples"]) & set(facts["entities"])
    for recorded in known.prompts.values():
        pairs = draw_pairs(recorded.answers, known.test, 1000, 0)
        assert set(pairs.flatten().tolist()) <= set(known.test)
        assert (recorded.answers[pairs[:, 0]] != recorded.answers[pairs[:, 1]]).all()
        assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)


def test_blocks_above_give_what_the_whole_model_gives(planted):
    """The reference runs all tokens of each prompt through all blocks, without a cache."""
    loaded, known = planted["loaded"], read_known(planted["prepared"])
    recorded = known.prompts["Country"]
    rows, sources = torch.arange(5), torch.arange(5, 10)
    changed = recorded.entities[sources].clone().requires_grad_()
    cut = CutModel(loaded, LAYER)
    logits = cut.run_above(recorded.select(rows), changed)
    (gradient,) = torch.autograd.grad(logits[:, 7].sum(), changed)
    for row in rows.tolist():
        ids = torch.cat([recorded.shared, recorded.ids[row, : recorded.lengths[row]]])[None]
        place = len(recorded.shared) + int(recorded.positions[row])
        own = recorded.entities[sources[row]].clone().requires_grad_()

        def patch(_block, _inputs, output, place=place, own=own):
            return output.index_put((torch.tensor([0]), torch.tensor([place])), own[None])

        handle = loaded.model.gpt_neox.layers[LAYER - 1].register_forward_hook(patch)
        whole = loaded.model(input_ids=ids).logits[0, -1]
        handle.remove()
        torch.testing.assert_close(logits[row], whole, rtol=1e-4, atol=1e-4)
        (expected,) = torch.autograd.grad(whole[7], own)
        torch.testing.assert_close(gradient[row], expected, rtol=1e-3, atol=1e-5)


def test_blocks_below_are_not_run(planted):
    cut, recorded = CutModel(planted["loaded"], LAYER), read_known(planted["prepared"]).prompts
    own = recorded["Country"].select(torch.arange(3))
    cut.run_above(own, own.entities)  # reads the shared tokens once
    calls: list[str] = []
    handles = [
        block.mlp.register_forward_hook(lambda *_args, place=place: calls.append(place))
        for place, block in enumerate(planted["loaded"].model.gpt_neox.layers)
    ]
    cut.run_above(own, own.entities)
    for handle in handles:
        handle.remove()
    assert calls == [1]


def test_rotation_begins_as_the_identity_and_stays_orthogonal():
    rotation = Rotation(6)
    base, source, share = torch.randn(3, 6), torch.randn(3, 6), torch.rand(6)
    torch.testing.assert_close(rotation(base, source, share), torch.lerp(base, source, share))
    with torch.no_grad():
        rotation.skew.normal_()
    matrix = rotation.rotate()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotation(base, source, torch.ones(6)), source, atol=1e-5, rtol=1e-4)
    expected = base @ matrix.T + share * (source @ matrix.T - base @ matrix.T)
    torch.testing.assert_close(
        rotation(base, source, share), expected @ matrix, atol=1e-5, rtol=1e-4
    )


def test_prompts_know_the_entitys_last_token_and_the_answers_first(planted):
    tokenizer = planted["loaded"].tokenizer
    labels = {city: own["Country"] for city, own in FACTS.items()}
    prompts = write_prompts(tokenizer, "the country of %s is", labels, ["city3"])
    assert len(prompts) == len(CITIES) - 1
    tokens = tokenizer.convert_ids_to_tokens(prompts[0].ids)
    assert tokens == [
        "the",
        "country",
        "of",
        "city3",
        "is",
        "Peru",
        ".",
        "the",
        "country",
        "of",
        "city0",
        "is",
    ]
    assert tokens[prompts[0].position] == prompts[0].entity == "city0"
    assert tokenizer.convert_ids_to_tokens(prompts[0].answer) == "France"
    assert count_shared(prompts) == 10
    with pytest.raises(ValueError, match="prompts: expected one %s for the entity, got 'where'"):
        write_prompts(tokenizer, "where", labels, [])


def test_examples_show_as_many_answers_as_they_can():
    chosen = choose_examples(FACTS, ["Country", "Continent"], 5, 0)
    assert {FACTS[city]["Country"] for city in chosen} == {own["Country"] for own in FACTS.values()}
    assert len({FACTS[city]["Continent"] for city in chosen}) == 3
    assert choose_examples(FACTS, ["Country"], 100, 0)[:5] != chosen
    assert len(choose_examples(FACTS, ["Country"], 100, 0)) == len(CITIES)


def test_a_model_that_knows_too_little_is_told_in_one_line(planted, tmp_path):
    ravel = planted["folder"] / "ravel" / "base"
    (tmp_path / "base").mkdir()
    for path in ravel.iterdir():
        content = json.loads(path.read_text())
        if path.name.endswith("entity_attributes.json"):  # wrong from the 18th city on
            for city in CITIES[17:]:
                content[city]["Continent"] = "France"
        (tmp_path / "base" / path.name).write_text(json.dumps(content))
    settings = planted["settings"].model_copy(update={"data": str(tmp_path)})
    prepared = tmp_path / "prepared" / NAME
    prepared.mkdir(parents=True)
    prepare_eval(NAME, planted["loaded"], SITE, settings, prepared)
    own = {**planted, "prepared": prepared, "settings": settings, "folder": tmp_path}
    scores = score(own, planted["directions"], "dictionary", k=WIDTH)
    reason = json.loads((scores / "not_applicable.json").read_text())["reason"]
    known = len(read_facts(prepared)["entities"])
    assert known < 20
    assert reason == (
        "expected a model that names Country and Continent of 20 entities at least, "
        f"got {known} of 43 (Country of 43, Continent of {known})"
    )
    assert read_metrics(scores) == {
        **{"applicable": 0, "entities_known": known, "entities_asked": 43}
    }


def test_entities_over_the_norm_limit_are_left_out(planted, tmp_path):
    prepare_eval(
        NAME, planted["loaded"], replace(SITE, norm_limit=1.0), planted["settings"], tmp_path
    )
    facts = read_facts(tmp_path)
    assert facts["entities"] == []
    assert facts["right"] == {"Country": 0, "Continent": 0}


def test_settings_are_refused_in_one_line(planted, tmp_path):
    def check(kind: str, **values: Any) -> None:
        data = str(planted["folder"] / "ravel")
        check_evals(parse_evals({NAME: {"data": data, **values}}), kind)

    check("causal")
    for message, kind, values in [
        (f"{NAME}: expected a causal .* language-model head", "encoder", {}),
        (rf"{NAME}\.data: expected 'hub' or a folder", "causal", {"data": str(tmp_path)}),
        (r"attributes: expected some of Continent, Country, got 'River'", "causal", {"attributes": ["Country", "River"]}),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            check(kind, **values)
    with pytest.raises(SettingsError, match="attributes: expected at least 2 items"):
        check("causal", attributes=["Country"])
