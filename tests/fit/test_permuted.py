"""The permuted decoder keeps the latents of its SAE and gives them other atoms."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dbksvd.base.files import read_json
from dbksvd.base.registry import find_source
from dbksvd.base.settings import parse
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.dictionaries.loading import load_sae
from dbksvd.fit.baselines.permuted import METHOD, check_base, fit
from dbksvd.fit.method import Base
from dbksvd.fit.registry import METHODS, find_method
from dbksvd.fit.task import FitTask

D, M = 6, 10


def make_task(base: Path, seed: int = 0) -> FitTask:
    return FitTask(
        train=None,
        heldout=None,
        n_atoms=M,
        k=2,
        seed=seed,
        settings=parse(METHOD.settings, {"algorithm": "permuted", "of": "other"}),
        device=torch.device("cpu"),
        checkpoint=base / "none",
        bases=(base,),
    )


@pytest.fixture
def topk(tmp_path: Path) -> Path:
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    torch.manual_seed(0)
    sae = TopKSAE(TopKSAEConfig(d_in=D, d_sae=M, k=2))
    sae.W_enc.data, sae.b_enc.data = torch.randn(D, M), torch.randn(M)
    sae.W_dec.data = torch.nn.functional.normalize(torch.randn(M, D), dim=1)
    sae.save_model(tmp_path / "base")
    return tmp_path / "base"


def test_latents_stay_and_atoms_move(topk: Path, tmp_path: Path):
    result = fit(make_task(topk))
    result.save(tmp_path / "permuted")
    before, after = load_sae(topk), load_sae(tmp_path / "permuted")
    x = torch.randn(50, D)
    torch.testing.assert_close(after.encode(x), before.encode(x), rtol=0, atol=0)
    order = torch.randperm(M, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(order, torch.arange(M))
    torch.testing.assert_close(after.W_dec, before.W_dec[order], rtol=0, atol=0)
    seal = read_json(tmp_path / "permuted/fit.json")
    assert seal["encoder_flops"] == 2 * D * M
    assert seal["of"] == "other"
    assert (tmp_path / "permuted/log.csv").is_file()


def test_seed_decides_the_permutation(topk: Path, tmp_path: Path):
    weights = []
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        fit(make_task(topk, seed)).save(tmp_path / name)
        weights.append(load_file(tmp_path / name / "sae_weights.safetensors")["W_dec"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_pursuit_is_refused(tmp_path: Path):
    atoms = torch.nn.functional.normalize(torch.randn(M, D), dim=1)
    Dictionary(atoms, torch.zeros(D), PursuitSettings(k=2)).save(tmp_path / "base")
    with pytest.raises(ValueError, match=r"of: expected an SAE with an encoder .* got 'other'"):
        fit(make_task(tmp_path / "base"))


def test_it_begins_from_the_named_method_and_from_its_own_source():
    settings = parse(METHOD.settings, {"algorithm": "permuted", "of": "topk-sae"})
    assert METHOD.find_base(settings) == Base("of", "topk-sae")
    assert METHOD.list_sources(settings) == ()
    assert find_source(METHODS, "permuted") == "dbksvd/fit/baselines/permuted.py"


def test_what_it_begins_from_is_checked_before_a_fit():
    sae = find_method("sae").settings
    settings = parse(METHOD.settings, {"of": "other"})
    check_base(settings, parse(sae, {"architecture": "topk"}))
    for base in (
        parse(sae, {"architecture": "matching_pursuit"}),
        parse(find_method("random").settings, {}),
    ):
        with pytest.raises(ValueError, match=r"^of: expected an SAE with an encoder .* 'other'$"):
            check_base(settings, base)
