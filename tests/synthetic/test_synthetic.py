"""Generative models draw what they say, in any number of slices; scores know truth from chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens.synthetic import eval_sae_on_synthetic_data
from torch.nn.functional import normalize

from dbksvd.activations.from_synthetic import BLOCK_ROWS, draw_slice, iterate_draws
from dbksvd.activations.hdf5 import open_file
from dbksvd.activations.sharding import write_shards
from dbksvd.activations.shards import ActivationShards
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation.ground_truth import (
    match_features,
    measure_rv,
    score_correlation,
    score_dictionary,
    score_router,
)
from dbksvd.synthetic.models import load_model, make_model, save_model
from dbksvd.synthetic.truth import Truth, join_truths, load_truth, save_truth

BENCH = {
    "kind": "synthsaebench",
    "num_features": 96,
    "hidden_dim": 48,
    "firing_probability": {
        "generator_name": "zipfian",
        "max_prob": 0.3,
        "min_prob": 0.01,
        "exponent": 0.5,
    },
    "hierarchy": {
        "total_root_nodes": 8,
        "branching_factor": 3,
        "max_depth": 2,
        "mutually_exclusive_portion": 1.0,
        "compensate_probabilities": True,
        "scale_children_by_parent": True,
    },
    "orthogonalization": {"num_steps": 5, "lr": 0.01},
    "correlation": {"rank": 4, "correlation_scale": 0.1},
    "mean_firing_magnitudes": {"generator_name": "linear", "start": 5.0, "end": 4.0},
    "std_firing_magnitudes": {"generator_name": "folded_normal", "mean": 0.5, "std": 0.5},
    "bias": 0.5,
    "seed": 3,
}
BLOCKS = {
    "kind": "block_correlated",
    "num_features": 32,
    "hidden_dim": 24,
    "block_size": 8,
    "k": 4,
    "correlation": [0.5, 0.9],
    "bias": 0.5,
    "orthogonalization_steps": 20,
    "seed": 1,
}
MIXTURE = {
    "kind": "expert_mixture",
    "num_components": 4,
    "features_per_component": 7,
    "hidden_dim": 32,
    "subspace_dim": 8,
    "k": 3,
    "magnitude": [1.0, 0.2],
    "component_magnitude": 2.0,
    "bias": 0.5,
    "seed": 1,
}
ALL = [BENCH, BLOCKS, MIXTURE]
by_kind = pytest.mark.parametrize("settings", ALL, ids=lambda settings: settings["kind"])


def draw(model: Any, n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
    blocks = list(iterate_draws(model, seed, "heldout", 0, n))
    components = [component for _, _, component in blocks if component is not None]
    codes = torch.cat([codes for _, codes, _ in blocks])
    return codes, torch.cat(components) if components else None


@by_kind
def test_codes_are_sparse_nonnegative_and_features_unit(settings: dict[str, Any]):
    model = make_model(settings)
    codes, _ = draw(model, 2000)
    assert codes.shape == (2000, len(model.features))
    assert (codes >= 0).all()
    norms = torch.linalg.vector_norm(model.features, dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    torch.testing.assert_close(torch.linalg.vector_norm(model.bias), torch.tensor(0.5))
    torch.testing.assert_close(model.embed(codes), codes @ model.features + model.bias)


@by_kind
def test_seed_decides_the_model_and_saving_keeps_it(settings: dict[str, Any], tmp_path: Path):
    model = make_model(settings)
    assert not torch.equal(model.features, make_model({**settings, "seed": 99}).features)
    torch.testing.assert_close(model.features, make_model(settings).features, rtol=0, atol=0)
    manifest = save_model(model, settings, tmp_path / "model")
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
    assert manifest["n_features"] == len(model.features)
    loaded = load_model(tmp_path / "model")
    torch.testing.assert_close(loaded.features, model.features, rtol=0, atol=0)
    assert torch.equal(draw(loaded, 100)[0], draw(model, 100)[0])


def test_changed_model_file_is_named(tmp_path: Path):
    save_model(make_model(BLOCKS), BLOCKS, tmp_path / "model")
    path = tmp_path / "model/synthetic_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"synthetic_model\.safetensors: expected sha256"):
        load_model(tmp_path / "model")


@by_kind
def test_draws_depend_on_seed_split_and_row_only(settings: dict[str, Any]):
    model = make_model(settings)
    n = BLOCK_ROWS + 300
    whole, _ = draw(model, n)
    before = torch.random.get_rng_state()
    pieces = [
        codes
        for start, stop in [(0, 7), (7, BLOCK_ROWS + 1), (BLOCK_ROWS + 1, n)]
        for _, codes, _ in iterate_draws(model, 0, "heldout", start, stop)
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(torch.cat(pieces), whole)
    assert not torch.equal(whole, draw(model, n, seed=1)[0])
    train = next(iterate_draws(model, 0, "train", 0, 100))[1]
    assert not torch.equal(train, whole[:100])


def test_synthsaebench_children_fire_with_their_parents_only():
    model = make_model(BENCH)
    codes, _ = draw(model, 4000)
    fires = codes > 0
    assert 2 < fires.sum(dim=1).float().mean() < 20

    def check(node: Any) -> int:
        children = [child for child in node.children if child.feature_index is not None]
        together = sum(fires[:, child.feature_index].int() for child in children)
        if children:
            assert together.max() <= 1  # mutually exclusive
            assert (fires[:, node.feature_index] | (together == 0)).all()
        return len(children) + sum(check(child) for child in node.children)

    assert sum(check(root) for root in model.model.hierarchy.roots) > 10


def test_blocks_have_k_active_and_fire_together():
    model = make_model(BLOCKS)
    codes, component = draw(model, 8000)
    assert component is None
    active = (codes > 0).sum(dim=1)
    assert active.max() == 4  # fewer where the Gaussian has fewer positive entries
    assert active.float().mean() > 3.9
    covariance = model.covariance
    assert torch.linalg.eigvalsh(covariance).min() > 0
    assert torch.equal(covariance.diagonal(), torch.ones(32))
    correlation = torch.corrcoef(codes.T)
    inside = (covariance > 0) & ~torch.eye(32, dtype=torch.bool)
    assert correlation[inside].mean() > 0.2
    assert correlation[covariance == 0].mean() < 0


def test_mixture_stays_in_the_components_own_features_and_subspace():
    model = make_model(MIXTURE)
    codes, component = draw(model, 4000)
    assert component is not None
    assert torch.bincount(component, minlength=4).min() > 800
    owner = torch.arange(32) // 8
    assert ((codes > 0) <= (owner == component[:, None])).all()
    assert torch.equal(codes[torch.arange(4000), component * 8], torch.full((4000,), 2.0))
    assert ((codes > 0).sum(dim=1) == 4).all()
    for c in range(4):
        assert torch.linalg.matrix_rank(model.features[owner == c]) == 8
    values = codes[:, owner * 8 != torch.arange(32)]
    assert values[values > 0].mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "gaussian"}, "kind: expected one of 'synthsaebench', .*, got 'gaussian'"),
        ({**BLOCKS, "block_size": 5}, "block_size: expected a divisor of num_features = 32, got 5"),
        ({**BLOCKS, "correlation": [0.9, 0.5]}, r"correlation: expected 0 <= low <= high < 1"),
        ({**BLOCKS, "kk": 1}, "kk: unknown key"),
        ({**MIXTURE, "k": 8}, r"synthetic\.k: expected at most features_per_component = 7, got 8"),
        ({**MIXTURE, "subspace_dim": 64}, "subspace_dim: expected at most hidden_dim = 32, got 64"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        make_model(settings)


@by_kind
def test_slices_make_the_same_whole(settings: dict[str, Any], tmp_path: Path):
    model = make_model(settings)
    save_model(model, settings, tmp_path / "model")
    found = {}
    for slices in (1, 3):
        counts = {"n_train_tokens": 1500, "n_heldout_tokens": 200, "slices": slices}
        x, truths = [], []
        for i in range(slices):
            part, truth = tmp_path / f"{slices}-{i}.h5", tmp_path / f"{slices}-{i}.safetensors"
            seal = draw_slice(tmp_path / "model", counts, i, part, tmp_path / f"t{truth.name}")
            assert json.loads(part.with_suffix(".json").read_text()) == seal
            truths.append(tmp_path / f"t{truth.name}")
            with open_file(part) as file:
                x.append(file["heldout/activations"][:])
        found[slices] = np.concatenate(x), load_truth(truths)
    np.testing.assert_allclose(found[1][0], found[3][0], atol=1e-5)
    truth = found[3][1]
    codes = truth.read_dense(0, 200, len(model.features))
    assert torch.equal(codes, found[1][1].read_dense(0, 200, len(model.features)))
    np.testing.assert_allclose(model.embed(codes).numpy(), found[1][0], atol=1e-5)
    assert (truth.component is not None) == (settings["kind"] == "expert_mixture")
    parts = [tmp_path / f"3-{i}.h5" for i in range(3)]
    write_shards(parts, {"rows_per_shard": 1000}, tmp_path / "shards")
    shards = ActivationShards.open(tmp_path / "shards")
    assert len(shards) == 1500
    assert shards.describe()["layer"] is None


def test_truth_survives_joining_slicing_and_the_disk(tmp_path: Path):
    codes = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 3.0]])
    first = Truth.from_dense(codes, torch.tensor([0, 1, 0]))
    both = join_truths([first, Truth.from_dense(codes[1:], torch.tensor([1, 1]))])
    assert len(both) == 5
    assert torch.equal(both.read_dense(1, 5, 3), torch.cat([codes[1:], codes[1:]]))
    save_truth(both, tmp_path / "truth.safetensors")
    again = load_truth([tmp_path / "truth.safetensors"])
    assert torch.equal(again.read_dense(0, 5, 3), both.read_dense(0, 5, 3))
    assert torch.equal(again.component, both.component)
    (tmp_path / "truth.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"truth\.safetensors: expected sha256"):
        load_truth([tmp_path / "truth.safetensors"])


def save_and_load(atoms: torch.Tensor, model: Any, k: int, folder: Path, **settings: Any) -> Any:
    from dbksvd.dictionaries.loading import load_sae

    settings = {"nonnegative": True, **settings}
    Dictionary(normalize(atoms, dim=1), model.bias, PursuitSettings(k=k, **settings), {}).save(
        folder
    )
    return load_sae(folder)


@pytest.fixture(scope="module")
def bench() -> tuple[Any, Truth]:
    model = make_model(BENCH)
    return model, Truth.from_dense(draw(model, 1500)[0])


def test_true_features_score_high_and_random_ones_low(bench: Any, tmp_path: Path):
    model, truth = bench
    true = score_dictionary(save_and_load(model.features, model, 6, tmp_path / "t"), model, truth)
    noise = torch.randn(model.features.shape, generator=torch.Generator().manual_seed(0))
    random = score_dictionary(save_and_load(noise, model, 6, tmp_path / "r"), model, truth)
    assert true["mcc"] == pytest.approx(1, abs=1e-5)
    assert true["uniqueness"] == 1
    assert true["f1"] > 0.8
    assert true["latents"] == 96
    assert true["samples"] == 1500
    assert random["mcc"] < 0.6
    assert random["f1"] < 0.3
    assert random["explained_variance"] < true["explained_variance"]
    assert not {"rv", "router_ami"} & set(true)
    json.dumps(true, allow_nan=False)


def test_scores_are_those_of_saelens_on_the_same_samples(bench: Any, tmp_path: Path):
    model, truth = bench
    sae = save_and_load(model.features[::2], model, 4, tmp_path / "half")
    scores = score_dictionary(sae, model, truth, batch_rows=400)

    class Once:
        def sample(self, batch_size: int) -> torch.Tensor:
            return truth.read_dense(0, batch_size, 96)

    whole = eval_sae_on_synthetic_data(sae, model.model.feature_dict, Once(), len(truth))
    assert scores["f1"] == pytest.approx(whole.classification.f1_score)
    assert scores["mcc"] == pytest.approx(whole.mcc)
    assert scores["explained_variance"] == pytest.approx(whole.explained_variance, abs=1e-4)
    assert scores["l0"] == pytest.approx(whole.sae_l0)
    assert scores["true_l0"] == pytest.approx((draw(model, 1500)[0] > 0).sum(1).float().mean())


def test_signed_dictionary_is_scored_sign_split_at_the_same_l0(bench: Any, tmp_path: Path):
    model, truth = bench
    sae = save_and_load(model.features, model, 6, tmp_path / "s", nonnegative=False)
    scores = score_dictionary(sae, model, truth)
    assert scores["latents"] == 2 * 96
    assert scores["l0"] <= 6


def test_atoms_are_matched_to_features_one_to_one():
    generator = torch.Generator().manual_seed(0)
    features = normalize(torch.randn(12, 16, generator=generator), dim=1)
    order = torch.randperm(12, generator=generator)
    atoms = torch.cat([-features, features[order]])
    atom, feature = match_features(atoms, features)
    assert (atom >= 12).all()  # a negated feature is no match
    assert torch.equal(order[atom - 12], feature)


def test_equal_seeds_do_not_draw_the_true_features():
    generator = torch.Generator().manual_seed(BLOCKS["seed"])
    random = normalize(torch.randn(32, 24, generator=generator), dim=1)
    plain = {**BLOCKS, "orthogonalization_steps": 0}
    assert (make_model(plain).features @ random.T).abs().max() < 0.9


def test_rv_of_equal_and_of_disjoint_matrices():
    a, b = torch.diag(torch.tensor([1.0, 1, 0])), torch.diag(torch.tensor([0.0, 0, 1]))
    assert measure_rv(a, 3 * a) == pytest.approx(1)
    assert measure_rv(a, b) == 0
    assert measure_rv(a, torch.zeros(3, 3)) == 0


class PerfectCoder:
    """Finds the codes exactly, in an order of its own; half of it never fires."""

    def __init__(self, model: Any) -> None:
        self.order = torch.randperm(len(model.features), generator=torch.Generator().manual_seed(0))
        self.W_dec = torch.cat([model.features[self.order], -model.features])
        self.inverse, self.bias = torch.linalg.pinv(model.features), model.bias

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        codes = ((x - self.bias) @ self.inverse)[:, self.order]
        return torch.cat([codes * (codes > 1e-3), torch.zeros_like(codes)], dim=1)


def test_perfect_codes_recover_the_correlations():
    model = make_model({**BLOCKS, "num_features": 16, "hidden_dim": 24, "block_size": 4})
    truth = Truth.from_dense(draw(model, 3000)[0])
    scores = score_correlation(PerfectCoder(model), model, truth)
    assert scores["rv"] == pytest.approx(1, abs=1e-5)
    assert scores["rv_modified"] == pytest.approx(1, abs=1e-5)
    assert 0.3 < scores["rv_covariance"] < 1


def test_codes_that_tell_nothing_recover_no_correlations(tmp_path: Path):
    model = make_model(BLOCKS)
    truth = Truth.from_dense(draw(model, 3000)[0])

    class Constant(PerfectCoder):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), len(self.W_dec)), 0.3)

    assert score_correlation(Constant(model), model, truth) == dict.fromkeys(
        ("rv", "rv_modified", "rv_covariance"), 0.0
    )
    sae = save_and_load(model.features, model, 4, tmp_path / "true")
    assert score_dictionary(sae, model, truth)["rv_modified"] > 0.6


def test_router_agreement_is_one_for_the_component_and_zero_for_chance():
    model = make_model(MIXTURE)
    codes, component = draw(model, 2000)
    truth = Truth.from_dense(codes, component)

    class Routed:
        def process_sae_in(self, x: torch.Tensor) -> torch.Tensor:
            return x - model.bias

        def route(self, inputs: torch.Tensor) -> torch.Tensor:
            subspaces = model.features.reshape(4, 8, 32)
            residual = [
                torch.linalg.lstsq(s.T, inputs.T).solution.T @ s - inputs for s in subspaces
            ]
            return -torch.stack([r.norm(dim=1) for r in residual], dim=1)[:, [2, 0, 3, 1]]

    class Blind(Routed):
        def route(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.rand(len(inputs), 6, generator=torch.Generator().manual_seed(1))

    found = score_router(Routed(), model, truth)
    assert found["router_ami"] == pytest.approx(1)
    assert found["experts_used"] == 4
    routing = torch.tensor(found["routing"])
    assert routing.sum() == 2000
    assert torch.equal((routing > 0).int().argmax(dim=1), torch.tensor([1, 3, 0, 2]))
    chance = score_router(Blind(), model, truth)
    assert abs(chance["router_ami"]) < 0.02
    assert len(chance["routing"][0]) == 6


def test_dictionary_without_router_has_no_agreement(tmp_path: Path):
    model = make_model(MIXTURE)
    truth = Truth.from_dense(*draw(model, 500))
    scores = score_dictionary(save_and_load(model.features, model, 4, tmp_path / "d"), model, truth)
    assert "router_ami" not in scores
    assert scores["f1"] > 0.6
