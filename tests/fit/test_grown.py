"""The grown dictionary finds planted features, parents among them, and codes with penalties."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rows import Rows
from torch.nn.functional import normalize

from dbksvd.codes import SparseCodes
from dbksvd.dictionary import Dictionary, PursuitSettings, encode_with
from dbksvd.fit.candidates import choose_apart, find_general_atoms
from dbksvd.fit.grown import fit
from dbksvd.fit.penalties import find_usage, set_penalties
from dbksvd.fit.registry import FitTask
from dbksvd.fit.sharing import share_atoms_

N_FEATURES, WIDTH = 24, 32


@pytest.fixture(scope="module")
def planted():
    """Features, and samples in which the first one comes with one of the next three, half alone."""
    generator = torch.Generator().manual_seed(0)
    features = torch.linalg.qr(torch.randn(WIDTH, N_FEATURES, generator=generator))[0].T
    draws = torch.rand(12_000, N_FEATURES, generator=generator)
    fires = draws < 0.08
    fires[:, 0] = draws[:, 0] < 0.4
    child = torch.randint(1, 7, (len(draws),), generator=generator)  # 4, 5 and 6 are no child
    for place in (1, 2, 3):
        fires[:, place] = fires[:, 0] & (child == place)
    values = 4.5 + 0.5 * torch.randn(draws.shape, generator=generator)
    noise = 0.1 * torch.randn(len(draws), WIDTH, generator=generator)
    return features, (values * fires) @ features + noise + 0.3


def make_task(x: torch.Tensor, base: Path | None = None, **settings: object) -> FitTask:
    return FitTask(
        Rows(x[:10_000]), Rows(x[10_000:]), N_FEATURES, 3, 0, {"algorithm": "grown", **settings},
        torch.device("cpu"), Path("unused"), base=base,
    )  # fmt: skip


@pytest.fixture(scope="module")
def grown(planted):
    return fit(make_task(planted[1], sharing=0.0))


def test_finds_the_features(planted, grown):
    found = (grown.dictionary.atoms @ planted[0].T).amax(dim=0)
    assert (found > 0.9).sum() >= N_FEATURES - 1
    assert found[0] > 0.9
    assert grown.log[-1]["n_atoms"] == N_FEATURES
    assert grown.log[-1]["fve_heldout"] > 0.9


def test_codes_are_not_negative_and_as_many_as_asked_on_average(planted, grown):
    codes = grown.dictionary.encode(planted[1][10_000:])
    assert (codes.values >= 0).all()
    assert abs(float(codes.l0.double().mean()) - 3) < 0.4
    assert codes.l0.max() > 4


def test_same_seed_same_dictionary_and_it_survives_saving(planted, grown, tmp_path):
    again = fit(make_task(planted[1], sharing=0.0)).dictionary
    assert torch.equal(again.atoms, grown.dictionary.atoms)
    again.save(tmp_path / "dictionary")
    loaded = Dictionary.load(tmp_path / "dictionary")
    assert loaded.settings == grown.dictionary.settings
    assert len(loaded.settings.penalties) == N_FEATURES
    x = planted[1][:50]
    assert torch.equal(loaded.encode(x).values, grown.dictionary.encode(x).values)


def test_saelens_codes_alike(planted, grown, tmp_path):
    from sae_lens import SAE

    import dbksvd.architectures  # noqa: F401

    grown.dictionary.save(tmp_path / "sae")
    sae = SAE.load_from_disk(str(tmp_path / "sae"))
    x = planted[1][:50]
    torch.testing.assert_close(sae.encode(x), grown.dictionary.encode(x).to_dense())


def test_polishes_another_dictionary(planted, tmp_path):
    features, x = planted
    generator = torch.Generator().manual_seed(1)
    rough = normalize(features + 0.15 * torch.randn(features.shape, generator=generator), dim=1)
    bias = x.mean(dim=0) * 0
    Dictionary(rough, bias, PursuitSettings(3)).save(tmp_path / "base")
    result = fit(make_task(x, tmp_path / "base", polish_iter=3, sharing=0.0, warm_start="base"))
    before, after = ((d * features).sum(1).mean() for d in (rough, result.dictionary.atoms))
    assert after > before + 0.1
    assert len(result.log) == 3


def test_general_directions_come_first(planted):
    features, x = planted
    residual = x - 0.3
    atoms = find_general_atoms(residual, 1, 2.0, 32, torch.Generator().manual_seed(0))
    assert atoms.shape == (1, WIDTH)
    assert int((features @ atoms[0]).argmax()) == 0


def test_candidates_that_are_alike_count_once():
    candidates = normalize(torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [-0.1, 1]]), dim=1)
    chosen = choose_apart(candidates, torch.tensor([2.0, 3.0, 1.9, 0.1]), 4)
    torch.testing.assert_close(chosen, candidates[[1, 2]])


def test_an_atom_is_given_a_share_of_the_one_it_goes_with():
    atoms = torch.eye(3)
    indices = torch.tensor([[0, 1], [0, 1], [0, 2], [0, 0], [2, 0]])
    values = torch.tensor([[1.0, 1], [1, 1], [1, 1], [1, 0], [1, 0]])
    share_atoms_(atoms, SparseCodes(indices, values, 3), 0.5)
    expected = normalize(torch.tensor([[1.0, 0, 0], [0.5, 1, 0], [0, 0, 1]]), dim=1)
    torch.testing.assert_close(atoms, expected)


def test_penalties_follow_usage(planted):
    features, x = planted
    x = x - 0.3
    settings = PursuitSettings(9, nonnegative=True, threshold=2.0)
    usage = find_usage(encode_with(x, features.contiguous(), settings))
    found = set_penalties(x, features.contiguous(), usage, 2.0, settings)
    codes = encode_with(x, features.contiguous(), found)
    assert abs(float(codes.l0.double().mean()) - 2.0) < 0.1
    penalties = torch.tensor(found.penalties, dtype=torch.float64)
    torch.testing.assert_close(penalties / penalties[0], usage.log() / usage[0].log())
    assert found.threshold == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.0}, r"method.threshold: expected more than 0, got 0.0"),
        ({"bias": "one"}, r"method.bias: expected 'zero' or 'mean', got 'one'"),
        ({"polish_iter": 0}, r"method.polish_iter: expected at least 1, got 0"),
        ({"tau": 1}, r"method.tau: unknown key"),
    ],
)
def test_bad_settings(planted, settings, message):
    with pytest.raises(ValueError, match=message):
        fit(make_task(planted[1], **settings))


def test_nothing_left_to_explain():
    with pytest.raises(ValueError, match="n_atoms: expected at most 0, which explain all samples"):
        fit(make_task(torch.zeros(12_000, 5)))
