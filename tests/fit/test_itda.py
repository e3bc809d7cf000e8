from pathlib import Path

import pytest
import torch
from rows import Rows

from dbksvd.base.settings import parse
from dbksvd.dictionaries.dictionary import PursuitSettings
from dbksvd.fit.baselines.itda import METHOD, fit
from dbksvd.fit.baselines.itda_atoms import ROUNDS, choose_atoms
from dbksvd.fit.task import FitTask


def make_task(x: torch.Tensor, n_atoms: int, **settings: object) -> FitTask:
    parsed = parse(METHOD.settings, {"algorithm": "itda", "nonnegative": False, **settings})
    return FitTask(Rows(x), Rows(x), n_atoms, 3, 0, parsed, torch.device("cpu"), Path("unused"))


def test_atoms_are_different_activations():
    x = torch.randn(640, 12, generator=torch.Generator().manual_seed(0)) + 3
    result = fit(make_task(x, 50))
    atoms = result.dictionary.atoms
    centred = torch.nn.functional.normalize(x - x.mean(dim=0), dim=1)
    assert atoms.shape == (50, 12)
    torch.testing.assert_close((atoms @ centred.T).amax(dim=1), torch.ones(50))
    assert (atoms @ atoms.T).abs().fill_diagonal_(0).max() <= 0.9 + 1e-6
    assert len(result.log) == ROUNDS
    assert result.log[-1]["samples_seen"] == 640
    assert result.stop_reason == "pass"


def test_takes_the_worst_reconstructed():
    atoms = torch.eye(4)[:2]
    x = torch.tensor([[5.0, 0, 0, 0], [1, 1, 0.1, 0], [0, 0.5, 3, 0], [9, 9, 0, 2], [0, 0, 0, 0]])
    chosen = choose_atoms(x, atoms, 1, PursuitSettings(k=2))
    torch.testing.assert_close(chosen, torch.nn.functional.normalize(x[2:3], dim=1))


def test_explains_more_than_the_same_number_of_random_directions():
    generator = torch.Generator().manual_seed(1)
    basis = torch.randn(30, 24, generator=generator)
    codes = torch.randn(3000, 30, generator=generator)
    codes *= torch.rand(3000, 30, generator=generator) < 0.1
    x = codes @ basis

    def measure(atoms: torch.Tensor) -> float:
        settings = PursuitSettings(k=3)
        dictionary = type(result.dictionary)(atoms, x.mean(dim=0), settings, {})
        return float((x - dictionary.decode(dictionary.encode(x))).pow(2).sum())

    result = fit(make_task(x, 60))
    random = torch.nn.functional.normalize(torch.randn(60, 24, generator=generator), dim=1)
    assert measure(result.dictionary.atoms) < 0.9 * measure(random)


def test_too_few_different_samples():
    x = torch.eye(6).repeat(10, 1)
    with pytest.raises(ValueError, match=r"n_atoms: expected at most \d+, the different samples"):
        fit(make_task(x, 40))
