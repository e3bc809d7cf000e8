"""Transcoders: planted pairs, what is saved, and what refuses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from sae_lens.saes.transcoder import JumpReLUTranscoder
from torch.nn.functional import normalize

from dbksvd.base.settings import parse
from dbksvd.dictionaries.loading import load_dictionary, load_sae
from dbksvd.evaluation.heldout import measure_dictionary, measure_folder
from dbksvd.fit.registry import find_method
from dbksvd.fit.sae.checkpoint import CHECKPOINT_FILE
from dbksvd.fit.sae.measure import make_inference_form
from dbksvd.fit.sae.transcoder import PairScaler, TranscoderLoop, fold_pair_scaler_
from dbksvd.fit.task import FitResult, FitTask

D_IN, D_OUT, ATOMS, K = 12, 8, 24, 2
PLACES = {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}


class Pairs:
    """Rows of an input and a target in memory; both are made of the same features."""

    def __init__(self, rows: int, seed: int, input_width: int | None = D_IN) -> None:
        generator = torch.Generator().manual_seed(7)
        ends = [
            normalize(torch.randn(ATOMS, width, generator=generator)) for width in (D_IN, D_OUT)
        ]
        generator.manual_seed(seed)
        fired = torch.rand(rows, ATOMS, generator=generator) < K / ATOMS
        codes = fired * (0.5 + torch.rand(rows, ATOMS, generator=generator))
        # of other units and with large offsets: neither may reach the fit
        self.x = torch.cat([7 * (codes @ ends[0]) + 30, 0.02 * (codes @ ends[1]) - 3], dim=1)
        self.input_width, self.width, self.mean = input_width, D_IN + D_OUT, self.x.mean(dim=0)

    def __len__(self) -> int:
        return len(self.x)

    def read(self, start: int, stop: int) -> torch.Tensor:
        return self.x[start:stop].clone()


def make_task(folder: Path, train: Any = None, **settings: Any) -> FitTask:
    given = {"algorithm": "sae", "architecture": "transcoder", "training_samples": 60_000}
    given |= {"batch_size": 256, "lr": 0.01, **settings}
    return FitTask(
        train=train or Pairs(4000, 0),
        heldout=Pairs(1000, 1),
        n_atoms=ATOMS,
        k=K,
        seed=0,
        settings=parse(find_method("sae").settings, given, "method"),
        device=torch.device("cpu"),
        checkpoint=folder / "checkpoint",
        metadata=dict(PLACES),
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitResult]:
    folder = tmp_path_factory.mktemp("transcoder")
    result = find_method("sae").fit(make_task(folder))
    result.save(folder / "fit")
    return folder / "fit", result


def test_the_target_is_reconstructed_from_the_input(fitted: tuple[Path, FitResult]):
    folder, result = fitted
    heldout = Pairs(1000, 1)
    metrics = measure_folder(folder, heldout)
    assert metrics["explained_variance"] > 0.6
    assert abs(metrics["l0"] - K) < 0.5
    # the last row of the log is of the same rows, before the scale is folded into the weights
    assert result.log[-1]["fve_heldout"] == pytest.approx(metrics["explained_variance"], abs=1e-4)
    assert result.summary["l0"] == pytest.approx(metrics["l0"], abs=1e-2)
    # by SAELens alone
    sae = SAE.load_from_disk(folder)
    assert isinstance(sae, JumpReLUTranscoder)
    inputs, targets = heldout.x.split([D_IN, D_OUT], dim=1)
    with torch.no_grad():
        error = (sae(inputs).double() - targets.double()).square().sum()
    whole = (targets.double() - targets.double().mean(dim=0)).square().sum()
    assert float(1 - error / whole) == pytest.approx(metrics["explained_variance"], abs=1e-4)
    norms = torch.linalg.vector_norm(sae.W_dec.detach(), dim=1)
    torch.testing.assert_close(norms, torch.ones(ATOMS), rtol=0, atol=1e-5)


def test_saelens_knows_both_places(fitted: tuple[Path, FitResult]):
    folder, result = fitted
    config = json.loads((folder / "cfg.json").read_text())
    assert config["architecture"] == "jumprelu_transcoder"
    assert (config["d_in"], config["d_out"], config["d_sae"]) == (D_IN, D_OUT, ATOMS)
    assert {name: config["metadata"][name] for name in PLACES} == PLACES
    assert json.loads((folder / "fit.json").read_text())["encoder_flops"] == 2 * D_IN * ATOMS
    assert result.summary["implementation"] == "sae_lens transcoder"


def test_folding_the_scale_changes_no_reconstruction(tmp_path: Path):
    loop = TranscoderLoop(make_task(tmp_path), make_task(tmp_path).settings.model_copy(update={
        "measure_every": 1000, "dead_window": 1000, "topk_threshold_lr": 0.1,
    }))  # fmt: skip
    loop.initialise()
    for _ in range(20):
        loop.step()
    sae, scaler = loop.trainer.sae, loop.trainer.activation_scaler
    assert isinstance(scaler, PairScaler)
    x = Pairs(500, 2).x
    before = make_inference_form(sae)
    wanted = scaler.unscale(before(scaler(x)[:, :D_IN]).detach().double())
    fold_pair_scaler_(sae, scaler)
    torch.testing.assert_close(
        make_inference_form(sae)(x[:, :D_IN]).detach().double(), wanted, rtol=0, atol=2e-4
    )
    sae.fold_W_dec_norm()
    torch.testing.assert_close(
        make_inference_form(sae)(x[:, :D_IN]).detach().double(), wanted, rtol=0, atol=2e-4
    )


class CutOff(Pairs):
    """Breaks off at a read."""

    left = 10

    def read(self, start: int, stop: int) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            raise OSError("cable pulled")
        return super().read(start, stop)


def test_a_training_goes_on_from_its_checkpoint(tmp_path: Path, fitted: tuple[Path, FitResult]):
    task = make_task(tmp_path, CutOff(4000, 0), checkpoint_seconds=0)
    with pytest.raises(OSError, match="cable pulled"):
        find_method("sae").fit(task)
    assert (tmp_path / "checkpoint" / CHECKPOINT_FILE).is_file()
    find_method("sae").fit(task).save(tmp_path / "fit")
    whole, resumed = (path / "sae_weights.safetensors" for path in (fitted[0], tmp_path / "fit"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_what_needs_samples_of_one_place_refuses_a_transcoder(fitted: tuple[Path, FitResult]):
    folder, _ = fitted
    for load in (load_dictionary, load_sae):
        with pytest.raises(ValueError, match=r"cfg\.json: architecture: expected an SAE that reconstructs each sample from itself, got 'jumprelu_transcoder'$"):  # fmt: skip
            load(folder)
    dictionary = load_dictionary(folder, transcoders=True)
    with pytest.raises(ValueError, match=r"^activations: expected width 20, .*got \(4, 12\)$"):
        measure_dictionary(dictionary, torch.randn(4, D_IN))
    with pytest.raises(ValueError, match=r"12.*8|8.*12"):
        dictionary.encode(torch.randn(4, D_OUT))


def test_a_transcoder_refuses_samples_of_one_place(tmp_path: Path):
    train = Pairs(300, 0, input_width=None)
    with pytest.raises(ValueError, match=r"^activations: expected pairs of an input and a target \(activations\.sites: \[mlp_pair\]\) for a transcoder, got rows of one place, 20 wide$"):  # fmt: skip
        find_method("sae").fit(make_task(tmp_path, train))
