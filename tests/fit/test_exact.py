import pytest
import torch

from dbksvd import DBKSVD, KSVD


def draw_planted(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(40, 20, generator=generator), dim=1)
    places = torch.rand(1500, 40, generator=generator).argsort(dim=1)[:, :3]
    weights = torch.randn(1500, 3, generator=generator)
    return (weights.unsqueeze(2) * atoms[places]).sum(1), atoms


def test_recovers_planted_atoms():
    x, planted = draw_planted(0)
    model = KSVD(40, 3, max_iter=60).fit(x)
    cosines = (model.dictionary_.atoms @ planted.T).abs().amax(dim=0)
    assert (cosines > 0.99).float().mean() >= 0.9


def test_the_update_never_raises_the_error():
    x, _ = draw_planted(1)
    log = KSVD(40, 3, max_iter=8).fit(x).log_
    assert all(row["error_updated"] <= row["error_coded"] * (1 + 1e-6) for row in log)
    assert all(row["samples_seen"] == (position + 1) * len(x) for position, row in enumerate(log))


def test_is_dbksvd_with_one_batch_of_samples_and_atoms_one_by_one():
    x, _ = draw_planted(2)
    exact = KSVD(30, 3, max_iter=3)
    same = DBKSVD(
        30, 3, max_iter=3, polish_iter=0, batch_size=len(x), atom_batch=1, power_iterations=10,
        method="omp", fit_refit=True,
    )  # fmt: skip
    assert torch.equal(exact.fit(x).dictionary_.atoms, same.fit(x).dictionary_.atoms)


@pytest.mark.parametrize("name", KSVD.FIXED)
def test_refuses_what_it_fixes(name: str):
    with pytest.raises(ValueError, match=rf"^{name}: expected nothing, K-SVD fixes it, got 7$"):
        KSVD(4, 1, **{name: 7})


def test_refuses_doubling():
    with pytest.raises(ValueError, match=r"^init: expected samples, random or atoms for K-SVD"):
        KSVD(4, 1, init="doubling")
