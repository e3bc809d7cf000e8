"""SAEs train on shards and land in the common format with unit atoms."""

from pathlib import Path

import pytest
import torch
from rows import Rows

from dbksvd.architectures.loading import load_dictionary
from dbksvd.fit.registry import FitTask
from dbksvd.fit.sae import fit, iterate_batches

SETTINGS = {
    "algorithm": "sae",
    "architecture": "topk",
    "training_samples": 60_000,
    "batch_size": 100,
    "lr": 0.004,
    "lr_warm_up": 0.05,
    "lr_decay": 0.2,
    "measure_every": 15_000,
}


@pytest.fixture
def planted() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(32, 16, generator=generator), dim=1)
    codes = torch.zeros(4000, 32)
    picks = torch.rand(4000, 32, generator=generator).topk(3, dim=1).indices
    codes.scatter_(1, picks, 1 + torch.rand(4000, 3, generator=generator))
    return 3.0 + 5.0 * codes @ atoms


def make_task(x: torch.Tensor, **changes: object) -> FitTask:
    return FitTask(
        train=Rows(x[:3500]),
        heldout=Rows(x[3500:]),
        n_atoms=64,
        k=3,
        seed=0,
        settings=SETTINGS | changes,
        device=torch.device("cpu"),
        checkpoint=Path("unused"),
        metadata={"model_name": "m", "hook_name": "h"},
    )


def test_topk_learns_and_folds_its_scale(planted: torch.Tensor, tmp_path: Path):
    torch.manual_seed(0)
    result = fit(make_task(planted))
    assert [row["samples_seen"] for row in result.log] == [15000, 30000, 45000, 60000]
    curve = [row["fve_heldout"] for row in result.log]
    assert curve[-1] > 0.8
    assert curve[-1] > curve[0]
    result.save(tmp_path / "sae")
    dictionary = load_dictionary(tmp_path / "sae")
    torch.testing.assert_close(dictionary.atoms.norm(dim=1), torch.ones(64), atol=1e-5, rtol=0)
    # In units of the raw activations: what was measured in training holds after folding.
    heldout = planted[3500:]
    codes = dictionary.encode(heldout)
    assert codes.l0.max() <= 3
    error = (heldout - dictionary.decode(codes)).pow(2).sum()
    total = (heldout - heldout.mean(dim=0)).pow(2).sum()
    assert 1 - error / total == pytest.approx(curve[-1], abs=1e-3)


def test_unknown_architecture_is_named(planted: torch.Tensor):
    with pytest.raises(ValueError, match="architecture: expected one of topk, got 'relu'"):
        fit(make_task(planted, architecture="relu"))


def test_batches_visit_every_row_once_a_pass():
    rows = Rows(torch.arange(640.0).reshape(-1, 1))
    batches = iterate_batches(rows, 32, seed=1, blocks=4)
    first = torch.cat([next(batches) for _ in range(20)])
    second = torch.cat([next(batches) for _ in range(20)])
    assert torch.equal(first.sort(dim=0).values, rows.x)
    assert torch.equal(second.sort(dim=0).values, rows.x)
    assert not torch.equal(first, second)
    again = iterate_batches(rows, 32, seed=1, blocks=4)
    assert torch.equal(next(again), first[:32])


def test_a_batch_larger_than_the_data_is_the_data():
    rows = Rows(torch.zeros(5, 2))
    assert next(iterate_batches(rows, 32, seed=0)).shape == (5, 2)
