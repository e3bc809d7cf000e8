"""SAEs that SAELens wrote, in all its settings: as SAELens on the same samples, or refused."""

from pathlib import Path

import pytest
import torch
from sae_lens import SAE
from sae_lens.registry import SAE_CLASS_REGISTRY

from dbksvd.base.codes import SparseCodes
from dbksvd.dictionaries.loading import load_dictionary, load_sae
from dbksvd.dictionaries.registration import register

register()
WIDTH, LATENTS = 16, 24
SETTINGS = {
    "standard": {},
    "gated": {},
    "jumprelu": {},
    "topk": {"k": 4},
    "matching_pursuit": {"max_iterations": 4, "residual_threshold": 0.0},
    "switch": {"k": 4, "n_experts": 2},
    "kron": {"k": 4, "n_heads": 2, "base": 3, "extension": 4},
    "dbksvd": {"k": 4},
}
OF_SAELENS = ("standard", "gated", "jumprelu", "topk", "matching_pursuit")


def make_samples(n: int = 600) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(1)) * 3 + 1


def save_sae(folder: Path, architecture: str, *, unit: bool = True, **changes: object) -> SAE:
    """Write an SAE with random weights; return it as SAELens itself reads it."""
    torch.manual_seed(0)
    sae_class, config_class = SAE_CLASS_REGISTRY[architecture]
    config = config_class(d_in=WIDTH, d_sae=LATENTS, **{**SETTINGS[architecture], **changes})
    sae = sae_class(config)
    with torch.no_grad():
        for name, weights in sae.named_parameters():
            weights.copy_(torch.randn(weights.shape) * (1.0 if name == "W_dec" else 0.5))
        if unit:
            rows = sae.W_dec.float()
            sae.W_dec.copy_(rows / rows.norm(dim=1, keepdim=True))
    sae.save_model(folder)
    return SAE.load_from_disk(folder).eval().requires_grad_(False)


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("architecture", OF_SAELENS)
def test_normalised_samples_are_decoded_by_their_own_norms(
    tmp_path: Path, architecture: str, norm: str, subtracts: bool
):
    original = save_sae(
        tmp_path, architecture, normalize_activations=norm, apply_b_dec_to_input=subtracts
    )
    dictionary, x = load_dictionary(tmp_path), make_samples()
    codes = dictionary.encode(x)
    dictionary.encode(x[:3] * 100 - 7)  # its norms are not those of the codes above
    expected = original(x)
    torch.testing.assert_close(codes.to_dense(), original.encode(x))
    torch.testing.assert_close(dictionary.decode(codes), expected)
    torch.testing.assert_close(dictionary.decode(codes[slice(500, 550)]), expected[500:550])
    torch.testing.assert_close(dictionary.decode(codes.to("cpu")), expected)
    assert dictionary.decode(dictionary.encode(x[:0])).shape == (0, WIDTH)
    plain = SparseCodes(codes.indices, codes.values, codes.n_atoms)
    with pytest.raises(ValueError, match=rf"codes: expected what encode\(\).*{norm}"):
        dictionary.decode(plain)


@pytest.mark.parametrize("architecture", ["standard", "gated"])
@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
def test_decoder_norms_are_folded_without_a_change(tmp_path: Path, architecture: str, norm: str):
    original = save_sae(tmp_path, architecture, unit=False, normalize_activations=norm)
    dictionary, x = load_dictionary(tmp_path), make_samples()
    torch.testing.assert_close(
        dictionary.decode(dictionary.encode(x)), original(x), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("rescales", [True, False])
def test_topk_of_unequal_rows_is_folded_only_where_the_choice_stays(tmp_path: Path, rescales: bool):
    original = save_sae(tmp_path, "topk", unit=False, rescale_acts_by_decoder_norm=rescales)
    if not rescales:
        with pytest.raises(ValueError, match="expected decoder rows of unit norm"):
            load_dictionary(tmp_path)
        return
    dictionary, x = load_dictionary(tmp_path), make_samples()
    torch.testing.assert_close(
        dictionary.decode(dictionary.encode(x)), original(x), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("architecture", ["standard", "topk", "switch"])
def test_average_norm_is_saelens_own_identity_and_said(
    tmp_path: Path, architecture: str, caplog: pytest.LogCaptureFixture
):
    original = save_sae(tmp_path, architecture, normalize_activations="expected_average_only_in")
    dictionary, x = load_dictionary(tmp_path), make_samples()
    torch.testing.assert_close(dictionary.decode(dictionary.encode(x)), original(x))
    assert "expected_average_only_in" in caplog.text


def test_heads_are_taken_flat(tmp_path: Path):
    original = save_sae(tmp_path, "standard", reshape_activations="hook_z")
    dictionary, x = load_dictionary(tmp_path), make_samples()
    expected = original(x.unflatten(1, (4, 4))).flatten(1)
    torch.testing.assert_close(dictionary.decode(dictionary.encode(x)), expected)


@pytest.mark.parametrize("architecture", SETTINGS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_dtypes_encode_as_saelens(tmp_path: Path, architecture: str, dtype: str):
    original = save_sae(tmp_path, architecture, dtype=dtype)
    x = make_samples()
    for dictionary in (load_dictionary(tmp_path),):
        codes = dictionary.encode(x)
        latents = original.encode(x)
        assert torch.equal(codes.to_dense().to(latents.dtype), latents)
        torch.testing.assert_close(
            dictionary.decode(codes).float(), original(x).float(), atol=0.1, rtol=0.05
        )
    assert load_sae(tmp_path).dtype == getattr(torch, dtype)


@pytest.mark.parametrize("architecture", ["standard", "topk", "switch", "kron", "dbksvd"])
def test_samples_of_any_form_and_none(tmp_path: Path, architecture: str):
    save_sae(tmp_path, architecture)
    dictionary, x = load_dictionary(tmp_path), make_samples(20)
    expected = dictionary.encode(x).to_dense()
    for form in (x.numpy(), x.numpy()[::-1].copy()[::-1], x.double(), x.T.contiguous().T):
        torch.testing.assert_close(dictionary.encode(form).to_dense().float(), expected)
    assert dictionary.decode(dictionary.encode(x[:0])).shape == (0, WIDTH)
    for bad, message in (
        (x[:, :5], "x: expected width 16 .*got 5"),
        (x.int(), "x: expected float32 or float64, got int32"),
        (x > 0, "got bool"),
        (x.to(torch.complex64), "got complex64"),
        (x * float("nan"), "x: expected finite values"),
    ):
        with pytest.raises(ValueError, match=message):
            dictionary.encode(bad)
    codes = dictionary.encode(x)
    with pytest.raises(ValueError, match="codes: expected codes over 24 atoms, got 25"):
        dictionary.decode(SparseCodes(codes.indices, codes.values, 25))


@pytest.mark.parametrize("architecture", ["transcoder", "skip_transcoder", "jumprelu_transcoder"])
def test_what_reconstructs_something_else_is_refused(tmp_path: Path, architecture: str):
    sae_class, config_class = SAE_CLASS_REGISTRY[architecture]
    config = config_class(
        d_in=WIDTH, d_sae=LATENTS, d_out=WIDTH, apply_b_dec_to_input=False,
        normalize_activations="none",
    )  # fmt: skip
    sae_class(config).save_model(tmp_path)
    with pytest.raises(ValueError, match=rf"cfg\.json: architecture: .*got '{architecture}'"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"architecture": 5}', '{"architecture": "topk"}'])
def test_an_odd_config_is_one_line(tmp_path: Path, text: str):
    save_sae(tmp_path, "topk")
    (tmp_path / "cfg.json").write_text(text)
    with pytest.raises(ValueError, match=r"cfg\.json: ") as caught:
        load_dictionary(tmp_path)
    assert "\n" not in str(caught.value)
