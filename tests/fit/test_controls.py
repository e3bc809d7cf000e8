from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from rows import Rows

from dbksvd.base.registry import find_source
from dbksvd.base.settings import parse
from dbksvd.fit.baselines.controls import IDENTITY, KMEANS, PCA, RANDOM, fit
from dbksvd.fit.method import FitSizes
from dbksvd.fit.registry import METHODS, find_method
from dbksvd.fit.task import FitTask


def make_task(algorithm: str, n_atoms: int, x: torch.Tensor, seed: int = 0) -> FitTask:
    settings = parse(find_method(algorithm).settings, {"nonnegative": False})
    return FitTask(
        Rows(x), Rows(x), n_atoms, 2, seed, settings, torch.device("cpu"), Path("unused")
    )


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
    assert all(callable(find_method(name).fit) for name in METHODS)
    with pytest.raises(ValueError, match=r"algorithm: expected one of .*, got 'magic'"):
        find_method("magic")


def test_sources_of_our_own_architectures_belong_to_their_fits_only():
    method = find_method("sae")
    assert find_source(METHODS, "sae") == "dbksvd/fit/sae/method.py"
    for architecture, modules in (
        ("switch", ("dbksvd.dictionaries.switch",)),
        ("kron", ("dbksvd.dictionaries.kron",)),
        ("topk", ()),
    ):
        settings = parse(method.settings, {"architecture": architecture})
        assert method.list_sources(settings) == modules
        assert all(find_spec(module) for module in modules)


@pytest.mark.parametrize("entry", [RANDOM, IDENTITY, PCA, KMEANS])
def test_entries_of_controls(entry):
    settings = parse(entry.settings, {})
    assert entry.is_control
    assert settings.nonnegative == (entry in (RANDOM, KMEANS))
    assert settings.pursuit == "ols"
    sizes = FitSizes(n_atoms=6, k=2, width=8, n_train=100, n_heldout=10)
    assert entry.plan(settings, sizes).disk == 2 * 6 * 8 * 4
    assert entry.coding(settings, sizes).products == 2 * 6 * 8
    with pytest.raises(ValueError, match=r"methods\.x\.method: unknown key"):
        parse(entry.settings, {"method": "mp"}, "methods.x")
