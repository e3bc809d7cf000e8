"""Exports code and reconstruct as the dictionary they were made from."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.dictionaries.exports import export_matching_pursuit, export_sign_split
from dbksvd.dictionaries.loading import load_dictionary

EXACT = {"nonnegative": True, "refit": False}


def make_dictionary(settings: PursuitSettings, *, positive: bool = False) -> Dictionary:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(40, 16, generator=generator)
    atoms = torch.nn.functional.normalize(atoms.abs() if positive else atoms, dim=1)
    return Dictionary(atoms, torch.randn(16, generator=generator), settings, {"layer": 4})


def make_activations(n: int) -> torch.Tensor:
    return 3 * torch.randn(n, 16, generator=torch.Generator().manual_seed(1)) + 1


@pytest.mark.parametrize(
    "settings", [PursuitSettings(5), PursuitSettings(5, method="omp")], ids=str
)
def test_sign_split_loads_after_import_and_reconstructs_the_same(settings, tmp_path):
    from sae_lens import SAE

    dictionary = make_dictionary(settings)
    export_sign_split(dictionary, tmp_path / "split")
    sae = SAE.load_from_disk(tmp_path / "split")
    x = make_activations(101)
    latents, codes = sae.encode(x), dictionary.encode(x)
    assert sae.cfg.d_sae == 80
    assert sae.cfg.metadata.layer == 4
    assert (codes.values < 0).any()
    assert (latents >= 0).all()
    assert torch.equal((latents != 0).sum(dim=1), codes.l0)
    torch.testing.assert_close(sae.decode(latents), dictionary.decode(codes), atol=1e-5, rtol=1e-6)
    assert load_dictionary(tmp_path / "split").atoms.shape == (80, 16)


def test_sign_split_of_nonnegative_codes_is_refused(tmp_path):
    dictionary = make_dictionary(PursuitSettings(5, nonnegative=True))
    with pytest.raises(ValueError, match="dictionary: expected signed codes"):
        export_sign_split(dictionary, tmp_path / "split")
    assert not (tmp_path / "split").exists()


PLAIN = """
import sys
import numpy, torch
from sae_lens import SAE
sae = SAE.load_from_disk(sys.argv[1])
assert type(sae).__name__ == "MatchingPursuitSAE"
with torch.no_grad():
    latents = sae.encode(torch.from_numpy(numpy.load(sys.argv[2])))
    numpy.savez(sys.argv[3], latents=latents.numpy(), decoded=sae.decode(latents).numpy())
assert not any(name.split(".")[0] == "dbksvd" for name in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("k", "positive"), [(1, False), (2, False), (4, True)])
def test_plain_saelens_codes_the_same(k, positive, tmp_path):
    dictionary = make_dictionary(PursuitSettings(k, **EXACT), positive=positive)
    export_matching_pursuit(dictionary, tmp_path / "plain")
    x = make_activations(501)
    x[0] = dictionary.bias  # a zero sample
    np.save(tmp_path / "x.npy", x.numpy())
    command = [sys.executable, "-c", PLAIN, "plain", "x.npy", "out.npz"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = np.load(tmp_path / "out.npz")
    codes = dictionary.encode(x)
    assert codes.l0.max() == k
    latents = torch.from_numpy(out["latents"])
    torch.testing.assert_close(latents, codes.to_dense(), atol=1e-5, rtol=1e-5)
    assert torch.equal((latents > 1e-4).sum(dim=1), (codes.values > 1e-4).sum(dim=1))
    decoded = torch.from_numpy(out["decoded"])
    torch.testing.assert_close(decoded, dictionary.decode(codes), atol=1e-4, rtol=1e-5)


def test_pursuits_do_differ_where_the_export_is_refused(tmp_path):
    from sae_lens.saes.matching_pursuit_sae import _encode_matching_pursuit

    dictionary = make_dictionary(PursuitSettings(6, **EXACT))
    with pytest.raises(ValueError, match=r"expected k of at most 2 .* got k=6 and a cosine of -0"):
        export_matching_pursuit(dictionary, tmp_path / "plain")
    x = make_activations(2000) - dictionary.bias
    theirs = _encode_matching_pursuit(x, dictionary.atoms, 0.0, 6, stop_on_duplicate_support=False)
    ours = dictionary.encode(x + dictionary.bias)
    assert ((theirs != 0).sum(dim=1) < ours.l0).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (PursuitSettings(2), "expected nonnegative=True for matching_pursuit, got False"),
        (
            PursuitSettings(2, nonnegative=True),
            "expected refit=False for matching_pursuit, got True",
        ),
        (PursuitSettings(2, method="omp", **EXACT), "expected method='mp' .* got 'omp'"),
        (PursuitSettings(2, rtol=0.1, **EXACT), "expected rtol=0.0 .* got 0.1"),
    ],
)
def test_other_coders_are_refused(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_matching_pursuit(make_dictionary(settings), tmp_path / "plain")
