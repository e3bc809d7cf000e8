"""Controls that are SAEs of which a part does not learn."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_sae import TOPK, make_planted, make_task, parse_sae

from dbksvd.base.layout import WEIGHTS_FILE
from dbksvd.base.settings import SettingsError
from dbksvd.fit.sae.configure import complete_settings
from dbksvd.fit.sae.method import METHOD, fit
from dbksvd.fit.sae.restraint import LEAST_COSINE, keep_near_
from dbksvd.fit.sae.trainer import SAELoop

SHORT = {**TOPK, "training_samples": 3000, "batch_size": 100}
# Settings that each architecture needs, and the name of its encoder's matrix.
ENCODERS = {
    "standard": ({}, "W_enc"),
    "gated": ({}, "W_enc"),
    "jumprelu": ({}, "W_enc"),
    "topk": ({}, "W_enc"),
    "abstopk": ({}, "W_enc"),
    "batchtopk": ({}, "W_enc"),
    "matryoshka_batchtopk": ({"groups": [16, 48]}, "W_enc"),
    "switch": ({"n_experts": 4}, "W_enc"),
    "kron": ({"base": 2, "extension": 2}, "W_factors"),
}


@pytest.fixture(scope="module")
def planted() -> torch.Tensor:
    return make_planted()


def start_and_train(x: torch.Tensor, folder: Path, **changes: object) -> tuple[dict, dict]:
    """Return the weights of an SAE before and after a short training."""
    task = make_task(x, folder, **{**SHORT, **changes})
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(task.seed)
        loop = SAELoop(task, complete_settings(task.settings, task.n_atoms, task.k, 3500))
        start = {name: tensor.clone() for name, tensor in loop.trainer.sae.state_dict().items()}
        loop.run()
    return start, loop.trainer.sae.state_dict()


def normalise(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows.double(), dim=1)


@pytest.mark.parametrize("architecture", ENCODERS)
def test_a_frozen_decoder_does_not_move(architecture: str, planted: torch.Tensor, tmp_path: Path):
    changes, encoder = ENCODERS[architecture]
    given = {"architecture": architecture, "decoder": "frozen", **changes}
    start, end = start_and_train(planted, tmp_path, **given)
    # some make rows unit again after each step, which rounds them
    torch.testing.assert_close(end["W_dec"], start["W_dec"], atol=1e-6, rtol=0)
    torch.testing.assert_close(start["W_dec"].norm(dim=1), torch.ones(64), atol=1e-5, rtol=0)
    assert not torch.equal(start[encoder], end[encoder])


@pytest.mark.parametrize("architecture", ENCODERS)
def test_a_frozen_encoder_does_not_move(architecture: str, planted: torch.Tensor, tmp_path: Path):
    changes, encoder = ENCODERS[architecture]
    given = {"architecture": architecture, "encoder": "frozen", **changes}
    start, end = start_and_train(planted, tmp_path, **given)
    assert torch.equal(start[encoder], end[encoder])
    assert not torch.equal(start["W_dec"], end["W_dec"])
    if architecture == "switch":
        assert torch.equal(start["W_router"], end["W_router"])


@pytest.mark.parametrize("architecture", ["topk", "kron", "standard"])
def test_a_soft_frozen_decoder_stays_near_its_start(architecture, planted, tmp_path: Path):
    given = {"architecture": architecture, **ENCODERS[architecture][0], "training_samples": 20_000}
    start, free = start_and_train(planted, tmp_path / "free", **given)
    moved = (normalise(start["W_dec"]) * normalise(free["W_dec"])).sum(1)
    assert moved.min() < LEAST_COSINE - 0.1  # the limit is one
    start, kept = start_and_train(planted, tmp_path / "kept", **given, decoder="soft_frozen")
    cosines = (normalise(start["W_dec"]) * normalise(kept["W_dec"])).sum(1)
    assert cosines.min() >= LEAST_COSINE - 1e-6
    assert cosines.min() < LEAST_COSINE + 1e-3  # some row is at the limit
    assert cosines.max() < 1 - 1e-4


def test_the_saved_atoms_are_the_frozen_ones_and_a_resumed_training_keeps_them(planted, tmp_path):
    given = {**SHORT, "decoder": "soft_frozen", "checkpoint_seconds": 0.0}
    whole = make_task(planted, tmp_path / "whole", **given)
    fit(whole).save(tmp_path / "first")
    cut = make_task(planted, tmp_path / "cut", **{**given, "max_seconds": 1e-9})
    result = fit(cut)
    assert result.stop_reason == "max_seconds"
    frozen = make_task(planted, tmp_path / "frozen", **SHORT, decoder="frozen")
    fit(frozen).save(tmp_path / "third")
    start, _ = start_and_train(planted, tmp_path / "start", decoder="frozen")
    atoms = load_file(tmp_path / "third" / WEIGHTS_FILE)["W_dec"]
    torch.testing.assert_close(atoms, start["W_dec"], atol=1e-6, rtol=0)
    again = load_file(tmp_path / "first" / WEIGHTS_FILE)["W_dec"]
    assert ((again * start["W_dec"]).sum(1) >= LEAST_COSINE - 1e-5).all()


def test_rows_are_put_back_to_the_nearest_allowed_direction():
    generator = torch.Generator().manual_seed(0)
    starts = torch.nn.functional.normalize(torch.randn(200, 8, generator=generator), dim=1)
    rows = 3 * torch.randn(200, 8, generator=generator)
    rows[100:] += 9 * starts[100:]
    rows[0] = -2 * starts[0]
    rows[1] = 0
    kept = rows.clone()
    keep_near_(kept, starts, 0.8)
    cosines = (normalise(kept) * normalise(starts)).sum(1)
    before = (normalise(rows) * normalise(starts)).sum(1)
    inside = before >= 0.8
    assert 0 < int(inside.sum()) < 200
    assert torch.equal(kept[inside], rows[inside])
    far = ~inside
    far[:2] = False
    torch.testing.assert_close(cosines[far], torch.full_like(cosines[far], 0.8), atol=1e-6, rtol=0)
    torch.testing.assert_close(kept.norm(dim=1), rows.norm(dim=1))
    # among the allowed directions none is nearer: it lies in the plane of start and row
    for row, new, start in zip(rows[far], kept[far], starts[far], strict=True):
        plane = torch.linalg.qr(torch.stack([row, start], dim=1).double()).Q
        assert (plane @ (plane.T @ new.double()) - new).norm() < 1e-5
        assert torch.dot(row, new) > torch.dot(row, start) * new.norm() * 0.8
    assert cosines[0] >= 0.8 - 1e-6  # opposite to its start: all allowed directions are as near
    assert torch.equal(kept[1], torch.zeros(8))


def test_what_cannot_learn_is_refused_and_controls_say_what_they_are():
    with pytest.raises(SettingsError, match=r"x\.encoder: expected free beside decoder: frozen"):
        parse_both = {"algorithm": "sae", "architecture": "topk", "encoder": "frozen"}
        parse(parse_both | {"decoder": "frozen"})
    for key, value in (("decoder", "frozen"), ("decoder", "soft_frozen"), ("encoder", "frozen")):
        with pytest.raises(SettingsError, match=rf"x\.{key}: expected free for .*matching_pursuit"):
            parse({"algorithm": "sae", "architecture": "matching_pursuit", key: value})
    free = parse_sae("topk")
    labels = {"frozen": "TopK SAE, frozen decoder", "soft_frozen": "TopK SAE, soft-frozen decoder"}
    for value, label in labels.items():
        settings = parse_sae("topk", decoder=value)
        assert METHOD.label(settings) == label
        assert METHOD.makes_control(settings)
    assert METHOD.label(parse_sae("topk", encoder="frozen")) == "TopK SAE, frozen encoder"
    assert not METHOD.makes_control(free)
    assert replace(METHOD, is_control=True).makes_control(free)


def parse(values: dict[str, object]) -> object:
    from dbksvd.base.settings import parse as parse_settings

    return parse_settings(METHOD.settings, values, "x")
