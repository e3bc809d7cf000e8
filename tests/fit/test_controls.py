from pathlib import Path

import pytest
import torch
from rows import Rows

from dbksvd.fit.baselines.controls import fit
from dbksvd.fit.registry import ALGORITHMS, find_method, list_sources
from dbksvd.fit.task import FitTask


def make_task(algorithm: str, n_atoms: int, x: torch.Tensor, seed: int = 0) -> FitTask:
    return FitTask(
        Rows(x), Rows(x), n_atoms, 2, seed, {"algorithm": algorithm, "nonnegative": False},
        torch.device("cpu"), Path("unused"),
    )  # fmt: skip


def test_random_atoms_are_unit_and_depend_on_the_seed():
    x = torch.randn(50, 8)
    one, same, other = (
        fit(make_task("random", 20, x, seed)).dictionary.atoms for seed in (0, 0, 1)
    )
    torch.testing.assert_close(one.norm(dim=1), torch.ones(20))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_pca_atoms_are_the_principal_directions():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 6, generator=generator) * torch.tensor([9.0, 5, 3, 1, 1, 1]) + 4
    dictionary = fit(make_task("pca", 3, x)).dictionary
    assert (dictionary.atoms.abs().argmax(dim=1) == torch.arange(3)).all()
    torch.testing.assert_close(
        dictionary.atoms @ dictionary.atoms.T, torch.eye(3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(dictionary.bias, x.mean(dim=0))
    with pytest.raises(ValueError, match="n_atoms: expected at most the width 6 for pca, got 7"):
        fit(make_task("pca", 7, x))


def test_kmeans_atoms_are_the_directions_of_clusters():
    generator = torch.Generator().manual_seed(3)
    centres = torch.nn.functional.normalize(torch.randn(5, 8, generator=generator), dim=1)
    x = 7 * centres[torch.randint(5, (3000,), generator=generator)]
    x = x + 0.2 * torch.randn(x.shape, generator=generator)
    result = fit(make_task("kmeans", 5, x))
    directions = torch.nn.functional.normalize(centres * 7 - x.mean(dim=0), dim=1)
    assert (result.dictionary.atoms @ directions.T).amax(dim=0).min() > 0.99
    assert result.summary["samples_seen"] == 3000
    again = fit(make_task("kmeans", 5, x)).dictionary.atoms
    assert torch.equal(result.dictionary.atoms, again)
    with pytest.raises(ValueError, match="n_atoms: expected at most the 3000 training samples"):
        fit(make_task("kmeans", 3001, x))


def test_identity_atoms_pick_the_largest_coordinates():
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(4))
    dictionary = fit(make_task("identity", 6, x)).dictionary
    codes = dictionary.encode(x)
    expected = (x - x.mean(dim=0)).abs().topk(2, dim=1).indices
    assert torch.equal(codes.indices.sort(dim=1).values, expected.sort(dim=1).values)


def test_registry_names_all_methods():
    assert all(callable(find_method(name)) for name in ALGORITHMS)
    with pytest.raises(ValueError, match=r"algorithm: expected one of .*, got 'magic'"):
        find_method("magic")


def test_sources_of_our_own_architectures_belong_to_their_fits_only():
    switch = {"algorithm": "sae", "architecture": "switch"}
    assert list_sources(switch) == ["dbksvd/fit/sae/method.py", "dbksvd/dictionaries/switch.py"]
    assert list_sources({"algorithm": "sae", "architecture": "topk"}) == [
        "dbksvd/fit/sae/method.py"
    ]
    assert all(Path(source).is_file() for source in list_sources(switch))
