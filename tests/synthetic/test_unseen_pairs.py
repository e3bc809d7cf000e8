"""Pairs of features that training rows never hold, and scores of held-out rows that do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from dbksvd.activations.from_synthetic import BLOCK_ROWS, draw_slice, iterate_draws
from dbksvd.activations.hdf5 import open_file
from dbksvd.activations.settings import DrawSettings, SyntheticActivations, choose_drawing
from dbksvd.base.settings import SettingsError, parse
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.dictionaries.loading import load_sae
from dbksvd.evaluation.ground_truth import score_dictionary
from dbksvd.evaluation.unseen import UNSEEN, UnseenScores
from dbksvd.synthetic.base import mix_seed
from dbksvd.synthetic.models import make_model, save_model
from dbksvd.synthetic.pairs import OVERSHOOT, choose_pairs, draw_without, hold_pair
from dbksvd.synthetic.settings import HeldOutPairs
from dbksvd.synthetic.truth import Truth, join_truths, load_truth, save_truth

BLOCKS = {
    "kind": "block_correlated", "num_features": 32, "hidden_dim": 24, "block_size": 8, "k": 4,
    "correlation": [0.2, 0.6], "bias": 0.5, "seed": 1,
}  # fmt: skip
MIXTURE = {
    "kind": "expert_mixture", "num_components": 4, "features_per_component": 7, "hidden_dim": 32,
    "subspace_dim": 8, "k": 3, "magnitude": [1.0, 0.2], "component_magnitude": 2.0, "seed": 1,
}  # fmt: skip
TREES = {
    "kind": "synthsaebench", "num_features": 96, "hidden_dim": 48, "seed": 3, "bias": 0.5,
    "firing_probability": {"max_prob": 0.3, "min_prob": 0.01},
    "hierarchy": {
        "total_root_nodes": 8, "branching_factor": 3, "max_depth": 2,
        "mutually_exclusive_portion": 1.0, "compensate_probabilities": True,
        "scale_children_by_parent": True,
    },
    "mean_firing_magnitudes": {}, "std_firing_magnitudes": {},
}  # fmt: skip
PAIRS = HeldOutPairs(share=0.2, seed=0)
by_kind = pytest.mark.parametrize(
    "settings", [BLOCKS, MIXTURE, TREES], ids=lambda settings: settings["kind"]
)


def draw(model: Any, split: Any, n: int, apart: torch.Tensor | None = None) -> torch.Tensor:
    return torch.cat([codes for _, codes, _ in iterate_draws(model, 0, split, 0, n, apart)])


@by_kind
def test_training_rows_hold_no_pair_and_the_wanted_share_of_heldout_rows_does(settings: Any):
    model = make_model(settings)
    pairs = choose_pairs(model, PAIRS)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(pairs.unique(dim=0)) == len(pairs)
    heldout, train = draw(model, "heldout", 6000), draw(model, "train", 6000, pairs)
    share = hold_pair(heldout, pairs).float().mean()
    assert 0.17 < share < 0.2 * OVERSHOOT + 0.02
    assert not hold_pair(train, pairs).any()
    # features, each of a pair too, go on firing: compositions are new, not their parts
    before, after = (heldout > 0).sum(dim=0), (train > 0).sum(dim=0)
    assert (after > 0.35 * before)[before > 100].all()
    other = choose_pairs(model, HeldOutPairs(share=0.2, seed=1))
    assert not torch.equal(other, pairs)
    assert torch.equal(choose_pairs(make_model(settings), PAIRS), pairs)


def test_a_pair_is_held_where_both_features_fire():
    codes = torch.tensor([[1.0, 2, 0], [0, 1, 3], [0, 0, 4], [1, 0, 1]])
    pairs = torch.tensor([[0, 1], [1, 2]])
    assert hold_pair(codes, pairs).tolist() == [True, True, False, False]


@by_kind
def test_rows_without_a_pair_stay_and_slices_make_the_same_whole(settings: Any):
    model = make_model(settings)
    pairs, n = choose_pairs(model, PAIRS), BLOCK_ROWS + 300
    plain, without = draw(model, "train", n), draw(model, "train", n, pairs)
    same = ~hold_pair(plain, pairs)
    assert torch.equal(plain[same], without[same])
    assert (plain[~same] != without[~same]).any(dim=1).all()
    state = torch.random.get_rng_state()
    pieces = [
        codes
        for start, stop in [(0, 7), (7, BLOCK_ROWS + 1), (BLOCK_ROWS + 1, n)]
        for _, codes, _ in iterate_draws(model, 0, "train", start, stop, pairs)
    ]
    assert torch.equal(torch.cat(pieces), without)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_redrawn_sample_brings_its_component():
    model = make_model(MIXTURE)
    torch.manual_seed(0)
    codes, component = draw_without(model, 500, choose_pairs(model, PAIRS))
    assert component is not None
    assert ((codes > 0) <= (torch.arange(32) // 8 == component[:, None])).all()


def draw_files(folder: Path, settings: Any, i: int = 0) -> tuple[torch.Tensor, torch.Tensor, Path]:
    """Return training and held-out rows, and the file of the truth, of one slice."""
    folder.mkdir(exist_ok=True)
    part, truth = folder / f"part-{i}.h5", folder / f"truth-{i}.safetensors"
    draw_slice(folder.parent / "model", settings, i, part, truth)
    with open_file(part) as file:
        rows = [torch.from_numpy(file[f"{s}/activations"][:]) for s in ("train", "heldout")]
        assert ("held_out_pairs" in file.attrs) == ("held_out_pairs" in settings)
    return *rows, truth


def test_files_tell_which_rows_are_unseen_and_null_changes_nothing(tmp_path: Path):
    model = make_model(BLOCKS)
    save_model(model, BLOCKS, tmp_path / "model")
    counts = {"n_train_tokens": 1500, "n_heldout_tokens": 600}
    apart = {**counts, "held_out_pairs": {"share": 0.2, "seed": 0}}
    control = {**counts, "held_out_pairs": {"share": 0.2, "seed": 0, "in_training": True}}
    train, heldout, truth = draw_files(tmp_path / "apart", apart)
    again = draw_files(tmp_path / "again", apart)
    assert torch.equal(again[0], train)
    assert again[2].read_bytes() == truth.read_bytes()
    plain = draw_files(tmp_path / "plain", counts)
    kept = draw_files(tmp_path / "kept", control)
    assert torch.equal(plain[0], kept[0])
    assert not torch.equal(plain[0], train)
    assert torch.equal(plain[1], heldout)
    assert kept[2].read_bytes() == truth.read_bytes()
    with torch.random.fork_rng():
        torch.manual_seed(mix_seed(0, 0, 0))
        first = model.draw_codes(BLOCK_ROWS)[0]
    torch.testing.assert_close(plain[0][:BLOCK_ROWS], model.embed(first), rtol=0, atol=0)
    assert load_truth([plain[2]]).unseen is None
    known, pairs = load_truth([truth]), choose_pairs(model, PAIRS)
    assert torch.equal(known.unseen, hold_pair(known.read_dense(0, 600, 32), pairs))
    halves = [draw_files(tmp_path / "halves", {**apart, "slices": 2}, i) for i in range(2)]
    joined = load_truth([half[2] for half in halves])
    assert torch.equal(joined.unseen, known.unseen)
    assert torch.equal(joined.take_first(70).unseen, known.unseen[:70])
    torch.testing.assert_close(torch.cat([half[0] for half in halves]), train)


def test_unseen_rows_survive_joining_and_the_disk(tmp_path: Path):
    first = Truth.from_dense(torch.eye(3), None, torch.tensor([True, False, False]))
    both = join_truths([first, first])
    save_truth(both, tmp_path / "truth.safetensors")
    again = load_truth([tmp_path / "truth.safetensors"])
    assert again.unseen.tolist() == [True, False, False] * 2
    assert again.component is None


def test_scores_are_those_of_the_rows_one_by_one(tmp_path: Path):
    model = make_model(BLOCKS)
    codes = draw(model, "heldout", 1500)
    codes[:, 5] = 0  # a feature that never fires
    truth = Truth.from_dense(codes, None, hold_pair(codes, choose_pairs(model, PAIRS)))
    noise = 0.1 * torch.randn(32, 24, generator=torch.Generator().manual_seed(0))
    Dictionary(
        normalize(model.features + noise, dim=1),
        model.bias,
        PursuitSettings(k=3, nonnegative=True),
        {},
    ).save(tmp_path / "d")
    sae = load_sae(tmp_path / "d")
    scores = score_dictionary(sae, model, truth, batch_rows=400)
    assert {name: scores[name] for name in UNSEEN}.keys() == set(UNSEEN)
    x = model.embed(codes)
    latents = sae.encode(x)
    nearest = (normalize(sae.W_dec, dim=1) @ model.features.T).abs().argmax(dim=1)
    for kind, rows in (("seen", ~truth.unseen), ("unseen", truth.unseen)):
        part, made = x[rows].double(), sae.decode(latents[rows]).double()
        left = (part - made).square().sum() / (part - part.mean(0)).square().sum()
        assert scores[f"{kind}_explained_variance"] == pytest.approx(1 - float(left), abs=1e-6)
        f1 = []
        for latent, feature in enumerate(nearest):
            if feature == 5:
                continue
            found, true = latents[rows][:, latent] != 0, codes[rows][:, feature] > 0
            f1.append(2 * float((found & true).sum()) / float(found.sum() + true.sum()))
        assert scores[f"{kind}_f1"] == pytest.approx(sum(f1) / len(f1), abs=1e-6)
        assert scores[f"{kind}_true_l0"] == pytest.approx(
            float((codes[rows] > 0).sum(1).float().mean())
        )
        assert scores[f"{kind}_l0"] == pytest.approx(
            float((latents[rows] != 0).sum(1).float().mean())
        )
    assert scores["unseen_rows"] == int(truth.unseen.sum())
    json.dumps(scores, allow_nan=False)
    plain = score_dictionary(sae, model, Truth(truth.codes), batch_rows=400)
    assert plain == {name: scores[name] for name in scores if name not in UNSEEN}


def test_too_few_rows_of_a_kind_are_refused():
    truth = Truth.from_dense(torch.ones(200, 32), None, torch.arange(200) < 49)
    features = make_model(BLOCKS).features
    with pytest.raises(ValueError, match=r"at least 50 .* pair and without, got 49 and 151$"):
        UnseenScores(features, features, truth)


@pytest.mark.parametrize(
    ("settings", "share", "message"),
    [
        (
            {**BLOCKS, "k": 1},
            0.2,
            r"^held_out_pairs: expected features that fire together .* none$",
        ),
        (
            BLOCKS,
            0.5,
            r"^held_out_pairs\.share: expected a share .* came to 0\.[34]\d\d, got 0\.5$",
        ),
        (
            MIXTURE,
            0.02,
            r"^held_out_pairs\.share: expected a share .* 0 of 112 pairs came to 0\.000, got 0\.02$",
        ),
    ],
)
def test_pairs_that_cannot_be_had_are_refused(settings: Any, share: float, message: str):
    with pytest.raises(ValueError, match=message):
        choose_pairs(make_model(settings), HeldOutPairs(share=share))


def read(**values: Any) -> SyntheticActivations:
    values = {"source": "synthetic", "synthetic": MIXTURE, **values}
    settings: SyntheticActivations = parse(SyntheticActivations, values, "activations")
    return settings


def test_the_drawing_is_told_of_pairs_and_the_model_is_not():
    settings = read(held_out_pairs={"share": 0.1, "seed": 7})
    assert choose_drawing(settings) == DrawSettings(held_out_pairs=HeldOutPairs(share=0.1, seed=7))
    assert settings.synthetic.describe_model() == read().synthetic.describe_model()
    assert choose_drawing(read()).held_out_pairs is None


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"share": 0}, r"^activations\.held_out_pairs\.share: expected .* 0, got 0"),
        ({"share": 0.6}, r"^activations\.held_out_pairs\.share: expected .* 0\.5, got 0\.6"),
        ({"shares": 0.2}, r"held_out_pairs\.shares: unknown key, did you mean 'share'\?$"),
        ({"share": 0.004}, r"n_heldout_tokens: expected 100 .* got about 80 of 20000$"),
    ],
)
def test_wrong_settings_are_named(pairs: Any, message: str):
    with pytest.raises(SettingsError, match=message):
        read(held_out_pairs=pairs)
