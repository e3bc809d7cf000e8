"""SAEs train on centred samples; what is saved takes the samples themselves."""

from pathlib import Path

import pytest
import torch
from sae_lens.saes.sae import SAE
from test_sae import LEARNED, make_planted, make_task

from dbksvd.dictionaries.registration import register
from dbksvd.fit.sae.centring import CentredScaler
from dbksvd.fit.sae.configure import complete_settings
from dbksvd.fit.sae.measure import make_inference_form
from dbksvd.fit.sae.method import fit
from dbksvd.fit.sae.train import SavableSAE
from dbksvd.fit.sae.trainer import SAELoop

SHORT = {"training_samples": 6000, "measure_every": 6000}


def shift_column(x: torch.Tensor, offset: float) -> torch.Tensor:
    """Return `x` with a constant in one column, in units of a coordinate's standard deviation."""
    constant = torch.zeros(x.shape[1])
    constant[3] = offset * (x - x.mean(dim=0)).square().mean().sqrt()
    return x + constant


def train_short(x: torch.Tensor, folder: Path, **changes: object) -> SAELoop:
    task = make_task(x, folder, **{**SHORT, **changes})
    torch.manual_seed(0)
    loop = SAELoop(task, complete_settings(task.settings, 64, 3, 3500))
    loop.run()
    return loop


CENTRED = [name for name in LEARNED if name != "llama_scope"]  # whose recipe knows no centre


@pytest.mark.parametrize(
    ("architecture", "centre"),
    [*((name, True) for name in CENTRED), *((name, False) for name in LEARNED)],
)
def test_a_saved_sae_is_that_of_the_training(architecture, centre, tmp_path):
    x = make_planted()
    changes = {**LEARNED[architecture][1], "architecture": architecture, "centre": centre, **SHORT}
    loop = train_short(x, tmp_path / "work", **changes)
    scaler = loop.trainer.activation_scaler
    # plainly: (x - mean) s, coded and decoded as in training, and back
    rows, mean = x[3500:], x[:3500].mean(dim=0) if centre else torch.zeros(16)
    trained = make_inference_form(loop.trainer.sae)
    with torch.no_grad():
        codes = trained.encode((rows - mean) * scaler.scaling_factor)
        expected = trained.decode(codes) / scaler.scaling_factor + mean
        SavableSAE(loop.finish()).save(tmp_path / "sae")
        register()
        saved = SAE.load_from_disk(str(tmp_path / "sae"))
        found = saved.encode(rows)
        torch.testing.assert_close(
            saved.decode(found), expected, rtol=0, atol=1e-5 * float(x.abs().max())
        )
    assert torch.equal(found.to_dense() != 0, codes.to_dense() != 0)
    assert isinstance(scaler, CentredScaler) == centre
    if centre:  # scaled by what differs between samples
        norms = (x[:2000] - mean).norm(dim=1)
        assert scaler.scaling_factor == pytest.approx(4 / float(norms.mean()), rel=0.05)
        torch.testing.assert_close(scaler.unscale(scaler.scale(rows)), rows)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [1.0, 10.0, 100.0, 1000.0])
def test_a_constant_in_the_samples_changes_no_training(offset, tmp_path):
    x = make_planted()
    plain = fit(make_task(x, tmp_path / "a")).log[-1]
    moved = fit(make_task(shift_column(x, offset), tmp_path / "b")).log[-1]
    # not equal: samples with a constant are rounded otherwise
    assert moved["fve_heldout"] == pytest.approx(plain["fve_heldout"], abs=0.01)
    assert moved["dead_atoms"] == pytest.approx(plain["dead_atoms"], abs=5)


@pytest.mark.slow
def test_without_centring_it_does(tmp_path):
    x = shift_column(make_planted(), 1000)
    centred, not_centred = (
        fit(make_task(x, tmp_path / str(centre), centre=centre)).log[-1] for centre in (True, False)
    )
    assert not_centred["fve_heldout"] < centred["fve_heldout"] - 0.1
