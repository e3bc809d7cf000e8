"""What a save leaves alone, what it refuses, and what a kill in the middle of it leaves."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.dictionaries.exports import export_matching_pursuit, export_sign_split
from dbksvd.dictionaries.loading import load_dictionary, load_sae
from dbksvd.dictionaries.registration import register
from dbksvd.dictionaries.switch import SwitchSAE, SwitchSAEConfig

FILES = {"cfg.json", "sae_weights.safetensors"}


def make_dictionary(seed: int = 0, **settings: object) -> Dictionary:
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(10, 6, generator=generator), dim=1)
    chosen = PursuitSettings(**{"k": 2 + seed, **settings})
    return Dictionary(atoms, torch.randn(6, generator=generator), chosen, {"seed": seed})


def save_switch(path: Path) -> None:
    sae = SwitchSAE(SwitchSAEConfig(d_in=6, d_sae=8, k=2, n_experts=2))
    sae.save_model(path)


def export_matching(path: Path) -> None:
    dictionary = make_dictionary(nonnegative=True, refit=False)
    export_matching_pursuit(dictionary, path)


SAVES = {
    "dictionary": lambda path: make_dictionary().save(path),
    "sign-split": lambda path: export_sign_split(make_dictionary(), path),
    "matching-pursuit": export_matching,
    "switch": save_switch,
}


@pytest.fixture(params=SAVES)
def save(request):
    return SAVES[request.param]


def test_other_files_stay(save, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "thesis.tex").write_text("mine too")
    for _ in range(2):
        save(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == FILES | {"notes.txt", "deep"}
        assert (tmp_path / "deep" / "thesis.tex").read_text() == "mine too"
        load_dictionary(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda path: (path / "cfg.json").write_text('{"model_type": "gpt2"}'),
            r"cfg\.json: .*got",
        ),
        (lambda path: (path / "cfg.json").write_text("learning_rate = 1"), r"cfg\.json: .*got"),
        (lambda path: (path / "cfg.json").write_bytes(b"\xff\x00"), r"cfg\.json: .*got another"),
        (lambda path: (path / "cfg.json").mkdir(), r"cfg\.json: .*got a folder"),
        (lambda path: (path / "cfg.json").symlink_to(path / "a"), r"cfg\.json: .*got a link"),
        (
            lambda path: save_file({"a": torch.ones(1)}, path / "sae_weights.safetensors"),
            r"sae_weights\.safetensors: expected a file of a dictionary",
        ),
        (lambda path: (path / "fit.json").write_text("{}"), r"expected a folder without fit\.json"),
    ],
)
def test_what_is_no_dictionary_is_refused_and_stays(save, tmp_path: Path, make, message):
    make(tmp_path)
    before = {path.name: path.lstat() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message) as caught:
        save(tmp_path)
    assert "\n" not in str(caught.value)
    assert {path.name: path.lstat() for path in tmp_path.iterdir()} == before


def test_a_file_is_no_folder(save, tmp_path: Path):
    path = tmp_path / "thesis.pdf"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"thesis\.pdf: expected a folder to write to, got a file"):
        save(path)
    assert path.read_text() == "mine"


def test_a_link_to_a_folder_stays_one(save, tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in (tmp_path / "disk").iterdir()} == FILES


@pytest.mark.parametrize("calls", range(3))
def test_a_killed_save_leaves_the_old_dictionary_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
):
    old, new = make_dictionary(0), make_dictionary(1)
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))
    old.save(tmp_path)
    done = 0

    def stop(*arguments, **_options):
        nonlocal done
        if done == calls:
            raise KeyboardInterrupt
        done += 1
        os.replace(*arguments)  # noqa: PTH105 - Path.replace is this function now

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stop)
        if calls < 2:
            with pytest.raises(KeyboardInterrupt):
                new.save(tmp_path)
        else:
            new.save(tmp_path)
    expected = new if calls else old
    loaded = Dictionary.load(tmp_path)
    assert loaded.settings == expected.settings
    assert loaded.metadata["seed"] == expected.metadata["seed"]
    assert torch.equal(loaded.encode(x).to_dense(), expected.encode(x).to_dense())
    register()
    sae = load_sae(tmp_path)  # sign-split
    assert sae.cfg.k == expected.settings.k
    torch.testing.assert_close(sae(x), expected.decode(expected.encode(x)))
    old.save(tmp_path)
    assert Dictionary.load(tmp_path).settings == old.settings


def test_an_edited_config_counts(tmp_path: Path):
    make_dictionary().save(tmp_path)
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "k": 5}))
    assert Dictionary.load(tmp_path).settings.k == 5


def change(**values: object):
    def edit(config: dict) -> dict:
        return {**config, **values}

    return edit


def drop(name: str):
    return lambda config: {key: value for key, value in config.items() if key != name}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        *[
            (drop(name), f"{name}: missing key")
            for name in ("k", "metadata", "method", "rtol", "refit", "nonnegative", "d_in", "d_sae")
        ],
        (drop("architecture"), "architecture: expected 'dbksvd', got None; dbksvd.load_dictionary"),
        (
            change(architecture="topk"),
            "got 'topk'; dbksvd.load_dictionary reads every architecture",
        ),
        (change(architecture=["dbksvd"]), "architecture: expected 'dbksvd'"),
        (change(k="2"), "k: expected integer, got '2'"),
        (change(k=0), "k: expected at least 1, got 0"),
        (change(k=2.5), "k: expected integer"),
        (change(k=True), "k: expected integer"),
        (change(k=11), "k: expected an integer from 1 to m=10, got 11"),
        (change(method="omp", k=7), "k: expected at most the width d=6 for omp, got 7"),
        (change(method="lasso"), "method: expected one of"),
        (change(rtol=1), "rtol: expected less than 1, got 1"),
        (change(rtol=float("nan")), "rtol: expected a finite number, got nan"),
        (change(threshold=-1.0), "threshold: expected at least 0"),
        (change(refit="yes"), "refit: expected boolean"),
        (change(metadata=None), "metadata: expected object, got None"),
        (change(penalties=[0.5]), "penalties: expected 10 numbers"),
        (change(penalties=[2.0] * 10), "penalties: expected 10 numbers from 0 to 1"),
        (change(product_dtype="int8"), "product_dtype: expected"),
        (change(d_in=7), r"W_dec: expected floats of shape \(10, 7\).* got float32 of shape"),
        (change(d_sae=9), r"W_dec: expected floats of shape \(9, 6\)"),
        (change(normalize_activations="layer_norm"), "normalize_activations: expected"),
        (change(apply_b_dec_to_input=False), "apply_b_dec_to_input: expected"),
        (lambda config: [config], "expected a JSON object, got list"),
    ],
)
def test_a_bad_config_is_a_value_error_that_names_file_and_key(tmp_path: Path, edit, message):
    make_dictionary(method="mp").save(tmp_path)
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=message) as caught:
        Dictionary.load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change_weights", "message"),
    [
        ("W_dec", lambda tensor: tensor * float("nan"), "W_dec: expected finite values"),
        ("W_dec", lambda tensor: 2 * tensor, "atoms: expected finite atoms of unit norm"),
        ("W_dec", lambda tensor: tensor[0], r"W_dec: expected floats of shape \(10, 6\)"),
        ("W_dec", lambda tensor: tensor.int(), "W_dec: expected floats .* got int32"),
        ("b_dec", lambda tensor: tensor / 0, "b_dec: expected finite values"),
        ("b_dec", lambda tensor: tensor[:3].clone(), r"b_dec: expected floats of shape \(6,\)"),
        ("b_dec", None, "expected tensors .* missing"),
    ],
)
def test_bad_weights_are_a_value_error_that_names_the_file(
    tmp_path: Path, name: str, change_weights, message: str
):
    make_dictionary().save(tmp_path)
    path = tmp_path / "sae_weights.safetensors"
    weights = load_file(path)
    tensor = weights.pop(name)
    if change_weights is not None:
        weights[name] = change_weights(tensor).contiguous()
    save_file(weights, path)
    with pytest.raises(ValueError, match=rf"sae_weights\.safetensors: {message}"):
        Dictionary.load(tmp_path)


def test_load_names_the_function_for_other_architectures(tmp_path: Path):
    save_switch(tmp_path)
    with pytest.raises(ValueError, match=r"got 'switch'; dbksvd\.load_dictionary reads every"):
        Dictionary.load(tmp_path)
    export_sign_split(make_dictionary(), tmp_path)
    with pytest.raises(ValueError, match=r"sign_split: .*dbksvd\.load_dictionary reads it"):
        Dictionary.load(tmp_path)
