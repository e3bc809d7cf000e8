"""The same atoms coded by several encoders, at equal L0."""

import json
from pathlib import Path

import pytest
import torch

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.evaluation.encoders.dictionaries import LassoDictionary, RecodedSAE, Recoder
from dbksvd.evaluation.encoders.settings import ENCODERS, LABELS
from dbksvd.evaluation.heldout import measure_dictionary

K = 5


def make_samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(48, 24, generator=generator), dim=1)
    counts = torch.randint(1, 10, (1500, 1), generator=generator)
    order = torch.rand(1500, 48, generator=generator).argsort(dim=1).argsort(dim=1)
    codes = (order < counts) * (0.5 + torch.rand(1500, 48, generator=generator))
    return 2 + codes @ atoms + 0.02 * torch.randn(1500, 24, generator=generator), atoms


def make_dictionary(*, nonnegative: bool) -> tuple[Dictionary, torch.Tensor]:
    x, atoms = make_samples()
    settings = PursuitSettings(k=K, method="omp", nonnegative=nonnegative)
    return Dictionary(atoms, x.mean(0), settings), x


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoders_have_equal_l0_and_the_same_atoms(encoder: str, nonnegative: bool):
    dictionary, x = make_dictionary(nonnegative=nonnegative)
    coded = Recoder(dictionary, K, x).make(encoder)
    assert torch.equal(coded.atoms, dictionary.atoms)
    assert torch.equal(coded.bias, dictionary.bias)
    found = measure_dictionary(coded, x)
    tight = 0.02 if encoder != "own" and not nonnegative else 0.05
    assert found["l0"] == pytest.approx(K, rel=tight)
    assert (coded.encode(x).values < 0).any() != nonnegative
    assert 0.3 < found["explained_variance"] < 1


def test_what_an_encoder_is_worth_shows():
    dictionary, x = make_dictionary(nonnegative=True)
    recoder = Recoder(dictionary, K, x)
    fve = {name: measure_dictionary(recoder.make(name), x)["explained_variance"] for name in LABELS}
    assert recoder.make("own") is dictionary
    assert fve["ols_mean"] > fve["ols"] + 0.01  # samples differ in how many atoms made them
    assert fve["ols"] >= fve["mp"]
    assert fve["lasso"] < fve["lasso_refit"] < fve["ols_mean"]


@pytest.mark.parametrize("nonnegative", [True, False])
def test_the_sae_of_a_coded_dictionary_has_its_latents(nonnegative: bool):
    dictionary, x = make_dictionary(nonnegative=nonnegative)
    coded = LassoDictionary(dictionary.atoms, dictionary.bias, 0.3, nonnegative)
    sae = RecodedSAE(coded, signed=not nonnegative)
    codes, latents = coded.encode(x), sae.encode(x.reshape(3, 500, 24))
    assert latents.shape == (3, 500, 48 if nonnegative else 96)
    assert (latents >= 0).all()
    assert torch.equal((latents != 0).sum(2).flatten(), codes.l0)
    torch.testing.assert_close(
        sae.decode(latents).reshape(-1, 24), coded.decode(codes), atol=1e-5, rtol=1e-5
    )
    assert LABELS.keys() >= set(ENCODERS)


def test_signed_saes_are_coded_with_signs(tmp_path: Path):
    from sae_lens.saes.abstopk_sae import AbsTopKSAE, AbsTopKSAEConfig

    x, atoms = make_samples()
    sae = AbsTopKSAE(AbsTopKSAEConfig(d_in=24, d_sae=48, k=K))
    sae.W_dec.data, sae.W_enc.data = atoms.clone(), atoms.T.clone().contiguous()
    sae.save_model(tmp_path)
    assert json.loads((tmp_path / "cfg.json").read_text())["architecture"] == "abstopk"
    recoder = Recoder(load_dictionary(tmp_path), K, x - x.mean(0))
    assert not recoder.nonnegative
    assert (recoder.make("ols").encode(x - x.mean(0)).values < 0).any()
