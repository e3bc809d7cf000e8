"""Places inside a block, in every family of the tables: tiny random models, told by their sums."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from dbksvd.activations.from_text import extract_slice, extract_slices
from dbksvd.activations.hdf5 import open_file
from dbksvd.models.families import FAMILIES, HOOK_NAMES, find_module, name_hook
from dbksvd.models.hooks import capture_sites, find_hook

LAYERS, WIDTH = 3, 16
SIZES = {
    "vocab_size": 60,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
ENCODERS = ("bert", "roberta", "xlm-roberta")
MODELS = [
    *((name, {}) for name in FAMILIES if name != "gemma3"),  # only GGUF files say that
    ("gpt_neox", {"use_parallel_residual": False}),
]
IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def make_model(name: str, changes: dict) -> nn.Module:
    """Return a random model whose norms and biases are random too, all weights of a like size."""
    config_class = CONFIG_MAPPING[name]
    default, names = config_class(), config_class.attribute_map
    values = {names.get(key, key): value for key, value in SIZES.items()}
    values = {key: value for key, value in values.items() if hasattr(default, key)} | changes
    torch.manual_seed(0)
    auto = AutoModel if name in ENCODERS else AutoModelForCausalLM
    model = auto.from_config(config_class(**values)).eval()
    for name, weight in model.named_parameters():
        if "norm" in name.lower() or "ln_" in name or name.endswith("bias"):
            nn.init.normal_(weight, 0.5, 0.2)
        else:
            nn.init.normal_(weight, 0, 0.2)
    return model.requires_grad_(False)


def load(model: nn.Module) -> SimpleNamespace:
    device = torch.device("cpu")
    return SimpleNamespace(model=model, n_layers=LAYERS, width=WIDTH, name="tiny", device=device)


@pytest.mark.parametrize(("name", "changes"), MODELS)
def test_places_are_what_the_block_adds_up(name: str, changes: dict):
    model = make_model(name, changes)
    loaded = load(model)
    places = [*HOOK_NAMES]
    hooks = {place: find_hook(loaded, 2, place=place) for place in places}
    passes = []
    _, blocks = next(
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == LAYERS
    )
    handles = [block.register_forward_hook(lambda *_: passes.append(1)) for block in blocks]
    found = dict(zip(places, capture_sites(loaded, [*hooks.values()], IDS, MASK), strict=True))
    for handle in handles:
        handle.remove()
    assert len(passes) == 2  # the third block is not run
    for place in places:  # the same bytes as alone, whatever else is read
        assert torch.equal(found[place], capture_sites(loaded, [hooks[place]], IDS, MASK)[0])
        assert found[place].std() > 1e-3
    before, after = found["residual_before"], found["residual"]
    assert torch.equal(before, capture_sites(loaded, [find_hook(loaded, 1)], IDS, MASK)[0])
    block = blocks[1]
    if name in ENCODERS:
        norms = block.attention.output.LayerNorm, block.output.LayerNorm
        near(norms[0](before + found["attention"]), found["mlp_input"])
        near(norms[1](found["mlp_input"] + found["mlp"]), after)
        near(block.output.dense(block.intermediate(found["mlp_input"])), found["mlp"])
        return
    near(before + found["attention"] + found["mlp"], after)
    own = block.mlp(found["mlp_input"])
    near(block.post_feedforward_layernorm(own) if name.startswith("gemma") and name != "gemma" else own, found["mlp"])  # fmt: skip


def near(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_names_of_transformer_lens_count_blocks_from_0():
    assert name_hook(15) == "blocks.14.hook_resid_post"
    assert name_hook(15, "residual_before") == "blocks.14.hook_resid_pre"
    assert name_hook(15, "attention") == "blocks.14.hook_attn_out"
    assert name_hook(15, "mlp") == "blocks.14.hook_mlp_out"
    assert name_hook(15, "gate") is None


def test_a_place_that_the_model_has_not():
    model = make_model("opt", {"ffn_dim": 32, "word_embed_proj_dim": WIDTH})
    loaded = load(model)
    one = r"^activations\.sites: expected one of residual, residual_before for a model of type opt"
    with pytest.raises(ValueError, match=rf"{one}, or the path .*modules\.mlp, got 'mlp'$"):
        find_hook(loaded, 2, place="mlp")
    pair = r"^activations\.sites: expected a model of a type that the tables know for mlp_pair, gpt2, .*, got 'opt'$"  # fmt: skip
    with pytest.raises(ValueError, match=pair):
        find_hook(loaded, 2, place="mlp_pair")
    with pytest.raises(ValueError, match=r"^layer: expected 1 to 3 for attention, got 0$"):
        find_hook(loaded, 0, place="attention")
    with pytest.raises(
        ValueError, match=r"^expected one of residual, .*, mlp_pair for a .*'heads'"
    ):
        find_module("llama", "heads")
    odd = make_model("llama", {})
    del odd.model.layers[1].mlp
    with pytest.raises(ValueError, match=r"expected the module model\.layers\.1\.mlp for mlp of layer 2, found self_attn, .*; name the module in activations\.modules\.mlp$"):  # fmt: skip
        find_hook(load(odd), 2, place="mlp")


PLACES = [(2, "residual"), (1, "mlp"), (2, "attention"), (2, "residual_before"), (3, "mlp_input"), (3, "mlp_pair"), (3, "mlp")]  # fmt: skip


def settings_for(folder, layer: int, place: str, **changes) -> dict:
    model = {"name": str(folder), "device": "cpu"}
    settings = {"model": model, "layer": layer, "place": place, "n_train_tokens": 300}
    return settings | {"n_heldout_tokens": 41, "context_length": 16, "batch_size": 3, **changes}


@pytest.mark.parametrize("kind", ["encoder", "causal"])
def test_one_pass_writes_the_bytes_of_separate_runs(
    kind, request, text_folder, tmp_path, monkeypatch
):
    folder = request.getfixturevalue(f"tiny_{kind}")
    sections = [settings_for(folder, *place, slices=2) for place in PLACES]
    module = "intermediate" if kind == "encoder" else "mlp.dense_h_to_4h"
    prefix = "encoder.layer" if kind == "encoder" else "gpt_neox.layers"
    sections.append(settings_for(folder, 2, "wide", slices=2, hook_module=f"{prefix}.1.{module}"))
    passes = []
    forward = torch.nn.Embedding.forward

    def count(embedding, ids):
        passes.append(len(ids))
        return forward(embedding, ids)

    alone = []
    for number, settings in enumerate(sections):
        extract_slice(settings, 1, tmp_path / f"alone-{number}.h5", text=text_folder)
        alone.append((tmp_path / f"alone-{number}.h5").read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Embedding, "forward", count)
        extract_slice(sections[0], 1, tmp_path / "counted.h5", text=text_folder)
        single, passes[:] = list(passes), []
        paths = [tmp_path / str(number) / "part.h5" for number in range(len(sections))]
        seals = extract_slices(sections, 1, paths, text=text_folder)
    assert passes == single
    assert sum(passes) >= 20  # documents: it did count
    assert [path.read_bytes() for path in paths] == alone
    assert all(seal["rows"] == {"train": 150, "heldout": 20} for seal in seals)
    attributes = []
    for path in paths:
        with open_file(path) as file:
            attributes.append(dict(file.attrs))
    assert "hook_name" not in attributes[0]  # as before there were places
    assert [found["hook_name"] for found in attributes[1:]] == [
        "blocks.0.hook_mlp_out",
        "blocks.1.hook_attn_out",
        "blocks.1.hook_resid_pre",
        "blocks.2.mlp.hook_in",
        "blocks.2.mlp.hook_in",
        "blocks.2.hook_mlp_out",
        f"{prefix}.1.{module}",
    ]
    # a pair is the rows of its two places, side by side
    pair = attributes[5]
    width = int(pair["input_width"])
    assert pair["hook_name_out"] == "blocks.2.hook_mlp_out"
    for split in ("train", "heldout"):
        rows = []
        for path in paths[4:7]:
            with open_file(path) as file:
                rows.append(file[split]["activations"][:])
        assert width == rows[0].shape[1]
        assert rows[1].tobytes() == np.concatenate([rows[0], rows[2]], axis=1).tobytes()


def test_sites_of_one_job_share_all_else(tiny_encoder, text_folder, tmp_path):
    sections = [settings_for(tiny_encoder, 2, "mlp"), settings_for(tiny_encoder, 2, "residual")]
    sections[1]["context_length"] = 12
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    with pytest.raises(ValueError, match=r"^settings\[1\]: expected those of the first entry but"):
        extract_slices(sections, 0, paths, text=text_folder)
    with pytest.raises(ValueError, match=r"^outputs: expected one a site, 2, got 1$"):
        extract_slices(sections, 0, paths[:1], text=text_folder)
    sections[1] = settings_for(tiny_encoder, 2, "gate", hook_module="encoder.layer.1.intermediat")
    with pytest.raises(ValueError, match=r"^hook_module: expected a submodule of BertModel, got 'encoder\.layer\.1\.intermediat', close names: encoder\.layer\.1\.intermediate"):  # fmt: skip
        extract_slices(sections, 0, paths, text=text_folder)
    assert not list(tmp_path.iterdir())


def test_files_of_a_model_say_its_type(tmp_path):
    from dbksvd.models.sizes import read_model_type

    for content, wanted in (
        ('{"model_type": "gpt2"}', "gpt2"),
        ('{"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}', "gemma3_text"),
        ("{}", None),
    ):
        (tmp_path / "config.json").write_text(content)
        assert read_model_type(tmp_path / "config.json") == wanted
