from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.dictionaries.loading import SAEDictionary, load_dictionary, load_sae
from dbksvd.dictionaries.registration import register
from dbksvd.dictionaries.signs import is_signed, split_signs

ROOT = Path(__file__).parents[2]
SETTINGS = [
    PursuitSettings(4),
    PursuitSettings(4, method="omp"),
    PursuitSettings(4, nonnegative=True),
    PursuitSettings(4, refit=False, rtol=0.3),
]


def make_dictionary(settings: PursuitSettings, m: int = 24, d: int = 16) -> Dictionary:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=generator), dim=1)
    # SAELens drops the metadata of a config that does not name a version from 6 on.
    metadata = {"layer": 4, "sae_lens_version": "6.0.0"}
    return Dictionary(atoms, torch.randn(d, generator=generator), settings, metadata)


def make_activations(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, 16, generator=torch.Generator().manual_seed(1)) + 1


@pytest.fixture(params=SETTINGS, ids=str)
def dictionary(request) -> Dictionary:
    return make_dictionary(request.param)


def test_saelens_loads_what_the_dictionary_saved(dictionary, tmp_path):
    from sae_lens import SAE

    dictionary.save(tmp_path / "dictionary")
    sae = SAE.load_from_disk(tmp_path / "dictionary")
    x = make_activations(101)
    codes = dictionary.encode(x)
    torch.testing.assert_close(sae.encode(x), codes.to_dense(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        sae.decode(sae.encode(x)), dictionary.decode(codes), rtol=1e-6, atol=1e-5
    )
    assert torch.equal(sae.W_enc, dictionary.atoms.T)
    assert sae.cfg.metadata.layer == 4


def test_dictionary_loads_what_saelens_saved(dictionary, tmp_path):
    from sae_lens import SAE

    dictionary.save(tmp_path / "first")
    SAE.load_from_disk(tmp_path / "first").save_model(tmp_path / "second")
    again = load_dictionary(tmp_path / "second")
    x = make_activations(63)
    assert isinstance(again, Dictionary)
    assert torch.equal(again.encode(x).to_dense(), dictionary.encode(x).to_dense())


def test_split_signs_keeps_reconstruction_and_l0(dictionary, tmp_path):
    dictionary.save(tmp_path / "dictionary")
    sae = load_sae(tmp_path / "dictionary")
    x = make_activations(101)
    latents, codes = sae.encode(x), dictionary.encode(x)
    assert (latents >= 0).all()
    assert sae.cfg.d_sae == (24 if dictionary.settings.nonnegative else 48)
    assert torch.equal((latents != 0).sum(1), codes.l0)
    torch.testing.assert_close(sae.decode(latents), dictionary.decode(codes), atol=1e-5, rtol=1e-6)


def test_sign_split_sae_saves_and_loads(tmp_path):
    from sae_lens import SAE

    make_dictionary(SETTINGS[0]).save(tmp_path / "dictionary")
    sae = load_sae(tmp_path / "dictionary")
    sae.save_model(tmp_path / "split")
    again = SAE.load_from_disk(tmp_path / "split")
    x = make_activations(63)
    assert again.cfg.sign_split
    torch.testing.assert_close(again.encode(x), sae.encode(x), atol=1e-6, rtol=0)
    as_dictionary = load_dictionary(tmp_path / "split")
    assert as_dictionary.atoms.shape == (48, 16)
    torch.testing.assert_close(
        as_dictionary.decode(as_dictionary.encode(x)), sae(x), atol=1e-5, rtol=1e-6
    )
    with pytest.raises(ValueError, match="expected signed latents"):
        sae.split_signs()


@pytest.mark.parametrize("k", [1, 5, 24])
def test_abstopk_is_split_into_a_topk_of_both_signs(k, tmp_path):
    from sae_lens import SAE
    from sae_lens.saes.abstopk_sae import AbsTopKSAE, AbsTopKSAEConfig

    torch.manual_seed(0)
    signed = AbsTopKSAE(AbsTopKSAEConfig(d_in=16, d_sae=24, k=k))
    signed.b_enc.data = 0.1 * torch.randn(24)
    signed.b_dec.data = torch.randn(16)
    signed.W_dec.data = torch.nn.functional.normalize(signed.W_dec.data, dim=1)
    signed.save_model(tmp_path / "signed")
    x = make_activations(101)
    split = load_sae(tmp_path / "signed")
    latents, expected = split.encode(x), signed.encode(x)
    assert is_signed(signed)
    assert not is_signed(split)
    assert (expected < 0).any()
    assert torch.equal(latents, torch.cat([expected.relu(), (-expected).relu()], dim=1))
    torch.testing.assert_close(split(x), signed(x), atol=1e-5, rtol=1e-5)
    split.save_model(tmp_path / "split")
    assert torch.equal(SAE.load_from_disk(tmp_path / "split").encode(x), latents)
    codes = load_dictionary(tmp_path / "signed").encode(x)
    assert torch.equal(codes.split_signs().to_dense(), latents)
    with pytest.raises(ValueError, match="expected signed latents"):
        split_signs(split)


@pytest.mark.parametrize("shape", [(), (1,), (3, 7), (2, 1, 5)])
def test_any_leading_shape(shape, tmp_path):
    make_dictionary(SETTINGS[0]).save(tmp_path / "dictionary")
    sae = load_sae(tmp_path / "dictionary")
    x = make_activations(*shape)
    assert sae.encode(x).shape == (*shape, 48)
    assert sae(x).shape == x.shape


def test_register_twice_changes_nothing():
    from sae_lens.registry import SAE_CLASS_REGISTRY

    before = SAE_CLASS_REGISTRY["dbksvd"]
    register()
    assert SAE_CLASS_REGISTRY["dbksvd"] is before


IMPORTS = ["import dbksvd; from sae_lens import SAE", "from sae_lens import SAE; import dbksvd"]


@pytest.mark.slow
@pytest.mark.parametrize("imports", IMPORTS)
def test_fresh_process_knows_the_architecture(imports, tmp_path):
    make_dictionary(SETTINGS[0]).save(tmp_path / "dictionary")
    code = f"{imports}; print(SAE.load_from_disk({str(tmp_path / 'dictionary')!r}).cfg.k)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "4"


@pytest.fixture
def topk_folder(tmp_path):
    """A TopK SAE whose decoder rows have all norms from 0.5 to 2."""
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    torch.manual_seed(0)
    sae = TopKSAE(TopKSAEConfig(d_in=16, d_sae=24, k=4, rescale_acts_by_decoder_norm=True))
    sae.W_dec.data = torch.nn.functional.normalize(torch.randn(24, 16), dim=1)
    sae.W_dec.data *= torch.linspace(0.5, 2, 24)[:, None]
    sae.W_enc.data = torch.randn(16, 24)
    sae.save_model(tmp_path / "topk")
    return tmp_path / "topk", sae


def test_other_architectures_answer_as_dictionaries(topk_folder):
    folder, original = topk_folder
    dictionary = load_dictionary(folder)
    x = make_activations(600)  # more than a block
    codes = dictionary.encode(x)
    assert isinstance(dictionary, SAEDictionary)
    assert codes.indices.shape[1] <= 4
    torch.testing.assert_close(dictionary.decode(codes), original(x), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(
        torch.linalg.vector_norm(dictionary.atoms, dim=1), torch.ones(24), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        codes.decode(dictionary.atoms) + dictionary.bias, original(x), atol=1e-4, rtol=1e-5
    )
    assert len(dictionary.encode(x[:0])) == 0


def test_bad_folders_are_named(topk_folder, tmp_path):
    folder, _ = topk_folder
    with pytest.raises(FileNotFoundError, match=r"cfg\.json"):
        load_sae(tmp_path)
    weights = folder / "sae_weights.safetensors"
    tensors = load_file(weights)
    tensors["W_dec"][3] = float("nan")
    save_file(tensors, weights)
    with pytest.raises(ValueError, match="finite decoder rows of unit norm"):
        load_sae(folder)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"sae_weights\.safetensors: expected a whole"):
        load_sae(folder)


def test_unknown_architecture_is_named(topk_folder):
    config = topk_folder[0] / "cfg.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architecture": "nonsense"}))
    with pytest.raises(ValueError, match="does not know 'nonsense'"):
        load_dictionary(topk_folder[0])
