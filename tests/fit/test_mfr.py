"""Mutual feature regularisation: its penalty, its matching, and a training from end to end."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from rows import Rows
from torch.nn.functional import normalize

from dbksvd.base.files import read_json
from dbksvd.base.settings import parse
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.evaluation.heldout import measure_dictionary
from dbksvd.fit.method import FitSizes
from dbksvd.fit.mfr.method import METHOD, fit
from dbksvd.fit.mfr.penalty import (
    find_penalty,
    match_pairs,
    match_rows,
    measure_imbalance,
    ramp,
)
from dbksvd.fit.mfr.training import MFRLoop
from dbksvd.fit.task import FitTask

M, D, K = 12, 8, 3


def draw(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(M, D, generator=generator, dtype=dtype)


def make_samples(n: int = 1500) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    picks = torch.rand(n, M, generator=generator).argsort(dim=1) < K
    values = 1 + torch.rand(n, M, generator=generator)
    return 4 * (picks * values) @ normalize(draw(0), dim=1) + 2


def make_task(folder: Path, x: torch.Tensor | None = None, **changes: object) -> FitTask:
    x = make_samples() if x is None else x
    told = {"training_samples": 12_000, "batch_size": 60, "lr": 0.01, "ramp_steps": 20, **changes}
    return FitTask(
        *(Rows(x[:1200]), Rows(x[1200:]), M, K, 0, parse(METHOD.settings, told)),
        *(torch.device("cpu"), folder / "checkpoint"),
        metadata={"model_name": "m"},
    )


def penalty_by_hand(weights: list[np.ndarray], places: list[np.ndarray]) -> float:
    """Return the penalty from its definition, in float64, one pair of rows at a time."""
    values = []
    for (first, second), matched in zip(combinations(weights, 2), places, strict=True):
        cosines = [
            first[i] @ second[j] / (np.linalg.norm(first[i]) * np.linalg.norm(second[j]))
            for i, j in enumerate(matched)
        ]
        values.append(1 - np.mean(cosines))
    return float(np.mean(values))


def test_value_and_gradient_are_those_of_the_definition():
    weights = [draw(seed, torch.float64).requires_grad_() for seed in range(3)]
    matchings = match_pairs(weights)
    places = [matching.numpy() for matching in matchings]
    penalty = find_penalty(weights, matchings)
    plain = [w.detach().numpy().copy() for w in weights]
    assert penalty.item() == pytest.approx(penalty_by_hand(plain, places), abs=1e-12)
    penalty.backward()
    step = 1e-6
    for weight, rows in zip(weights, plain, strict=True):
        for place in [(0, 0), (3, 5), (M - 1, D - 1)]:
            before = rows[place]
            values = []
            for shift in (step, -step):
                rows[place] = before + shift
                values.append(penalty_by_hand(plain, places))
            rows[place] = before
            slope = (values[0] - values[1]) / (2 * step)
            assert weight.grad[place].item() == pytest.approx(slope, abs=1e-8)


def test_float32_is_near_float64_and_autograd_agrees():
    weights = [draw(seed).requires_grad_() for seed in range(2)]
    twins = [w.detach().double().requires_grad_() for w in weights]
    matchings = match_pairs(weights)
    assert [m.tolist() for m in matchings] == [m.tolist() for m in match_pairs(twins)]
    for some in (weights, twins):
        find_penalty(some, matchings).backward()
    for one, twin in zip(weights, twins, strict=True):
        torch.testing.assert_close(one.grad.double(), twin.grad, rtol=1e-4, atol=1e-6)
    assert torch.autograd.gradcheck(lambda a, b: find_penalty([a, b], matchings), twins)


def test_no_gradient_flows_through_the_matching():
    first, second = draw(0).requires_grad_(), draw(1).requires_grad_()
    places = match_rows(first, second)
    assert not places.requires_grad
    assert sorted(places.tolist()) == list(range(M))


def test_copies_in_another_order_cost_nothing():
    rows = draw(0)
    order = torch.randperm(M, generator=torch.Generator().manual_seed(5))
    twin = 3 * rows[order]
    places = match_rows(rows, twin)
    torch.testing.assert_close(twin[places], 3 * rows)
    assert find_penalty([rows, twin], [places]).item() == pytest.approx(0, abs=1e-6)


def test_ramp_rises_to_one_and_stays():
    assert ramp(0, 100) == pytest.approx(0)
    assert ramp(50, 100) == pytest.approx(0.5)
    assert ramp(100, 100) == ramp(1000, 100) == 1
    assert all(ramp(t, 100) < ramp(t + 1, 100) for t in range(100))


def test_imbalance_by_hand():
    # 10 samples of 2 atoms each: rates 1, 1, 0, 0 where .5 is expected
    assert measure_imbalance(torch.tensor([10, 10, 0, 0]), 10, 2) == 1
    assert measure_imbalance(torch.tensor([5, 5, 5, 5]), 10, 2) == 0
    # one of 4 atoms does all: |4 - 1| + 3 · 1 over 4, to the third power
    assert measure_imbalance(torch.tensor([10, 0, 0, 0]), 10, 1) == pytest.approx(1.5**3)


def test_saved_sae_explains_what_the_log_says(tmp_path: Path):
    task = make_task(tmp_path)
    result = fit(task)
    assert result.log[-1]["fve_heldout"] > 0.6
    assert result.log[-1]["fve_heldout"] > result.log[0]["fve_heldout"]
    result.save(tmp_path / "saved")
    found = measure_dictionary(load_dictionary(tmp_path / "saved"), task.heldout)
    assert found["explained_variance"] == pytest.approx(result.log[-1]["fve_heldout"], abs=1e-4)
    seal = read_json(tmp_path / "saved/fit.json")
    assert seal["samples_seen"] == 12_000
    assert seal["encoder_flops"] == 2 * D * M


def test_the_authors_recipe_has_one_rate_and_no_centre(tmp_path: Path):
    recipe = {"match_every": 1, "lr_warm_up": 0.0, "lr_decay": 0.0, "centre": False}
    task = make_task(tmp_path, make_samples() + 2.0, **recipe)
    loop = MFRLoop(task)
    rates = set()
    for step in (0, 1, loop.n_steps // 2, loop.n_steps - 1):
        loop.steps = step
        rates.add(loop.find_rate())
    assert rates == {1.0}
    result = fit(task)
    result.save(tmp_path / "sae")
    dictionary = load_dictionary(tmp_path / "sae")
    assert not dictionary.bias.any()
    rows = task.heldout.read(0, len(task.heldout))
    left = (rows - dictionary.decode(dictionary.encode(rows))).double().square().sum()
    whole = (rows - rows.mean(dim=0)).double().square().sum()
    assert 1 - float(left / whole) == pytest.approx(result.log[-1]["fve_heldout"], abs=1e-4)


def test_penalty_draws_the_saes_together(tmp_path: Path):
    shared = {}
    for weight in (0.0, 1.0):
        shared[weight] = fit(make_task(tmp_path, weight=weight)).summary["shared_cosine"]
    assert shared[1.0] > shared[0.0] + 0.05


def test_unbalanced_saes_begin_anew(tmp_path: Path):
    result = fit(make_task(tmp_path, largest_imbalance=1e-9, training_samples=3600))
    # 60 steps; looked at after 20 and 40, both before the decay of the last 12
    assert result.summary["begun_anew"] == 4
    assert fit(make_task(tmp_path, largest_imbalance=1e9)).summary["begun_anew"] == 0


def test_interrupted_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch):
    whole = fit(make_task(tmp_path / "whole", training_samples=4000, n_saes=3))
    task = make_task(tmp_path / "cut", training_samples=4000, n_saes=3, checkpoint_seconds=0.0)
    step = MFRLoop.step

    def cut(loop):
        if loop.steps == 33:
            raise KeyboardInterrupt
        return step(loop)

    with monkeypatch.context() as patch:
        patch.setattr(MFRLoop, "step", cut)
        with pytest.raises(KeyboardInterrupt):
            fit(task)
    resumed = fit(task)
    ours, theirs = (one.dictionary.trained for one in (whole, resumed))
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
    assert [row["loss"] for row in whole.log] == [row["loss"] for row in resumed.log]


def test_diverging_training_says_so(tmp_path: Path):
    x = make_samples()
    with pytest.raises(ValueError, match=r"^lr: expected a rate at which training is stable"):
        fit(make_task(tmp_path, x, lr=1e38))


def test_plan_and_label():
    settings = parse(METHOD.settings, {"n_saes": 3, "training_samples": 1000})
    work = METHOD.plan(settings, FitSizes(32, 4, 8, n_train=100, n_heldout=0))
    assert work.products == 3 * 1000 * 3 * 4 * 8 * 32
    assert METHOD.label(settings) == "MFR SAE, first of 3"
