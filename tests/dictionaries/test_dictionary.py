from pathlib import Path

import pytest
import torch

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings


@pytest.fixture
def dictionary() -> Dictionary:
    torch.manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(20, 6), dim=1)
    settings = PursuitSettings(k=3, nonnegative=True, rtol=0.01)
    return Dictionary(atoms, torch.randn(6), settings, {"model_name": "m", "seed": 3})


def test_saved_and_loaded_it_encodes_the_same(dictionary: Dictionary, tmp_path: Path):
    dictionary.save(tmp_path / "a")
    loaded = Dictionary.load(tmp_path / "a")
    assert loaded.settings == dictionary.settings
    assert dictionary.metadata.items() <= loaded.metadata.items()
    x = torch.randn(50, 6)
    assert torch.equal(loaded.encode(x).to_dense(), dictionary.encode(x).to_dense())
    assert torch.equal(loaded.decode(loaded.encode(x)), dictionary.decode(dictionary.encode(x)))


def test_bias_is_taken_off_and_put_back(dictionary: Dictionary):
    codes = dictionary.encode(dictionary.bias.expand(2, 6))
    assert (codes.l0 == 0).all()
    torch.testing.assert_close(dictionary.decode(codes), dictionary.bias.expand(2, 6))


@pytest.mark.parametrize(
    ("atoms", "bias", "message"),
    [
        (torch.ones(4, 3), torch.zeros(3), "atoms: expected finite atoms of unit norm"),
        (torch.full((4, 3), torch.nan), torch.zeros(3), "atoms: expected finite atoms"),
        (torch.eye(3), torch.zeros(4), r"atoms, bias: expected shapes .* got \(3, 3\) and \(4,\)"),
        (torch.eye(3), torch.tensor([0, torch.inf, 0]), "bias: expected finite values"),
    ],
)
def test_bad_parts_are_named(atoms: torch.Tensor, bias: torch.Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        Dictionary(atoms, bias, PursuitSettings(k=1))


def test_damaged_files_are_named(dictionary: Dictionary, tmp_path: Path):
    folder = tmp_path / "a"
    dictionary.save(folder)
    weights = folder / "sae_weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"sae_weights\.safetensors: expected a whole safetensors"):
        Dictionary.load(folder)
    weights.write_bytes(content)
    config = folder / "cfg.json"
    config.write_text(config.read_text().replace('"dbksvd"', '"topk"'))
    with pytest.raises(ValueError, match=r"cfg\.json: architecture: expected 'dbksvd', got 'topk'"):
        Dictionary.load(folder)
    config.unlink()
    with pytest.raises(FileNotFoundError, match=r"cfg\.json"):
        Dictionary.load(folder)
