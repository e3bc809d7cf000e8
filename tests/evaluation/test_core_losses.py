"""core's losses from recorded passes, against SAEBench's own three passes of the whole model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from conftest import WORDS

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation.saebench.losses import RecordedLosses, list_hooks, measure_kl, record_losses
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel, name_hook
from dbksvd.evaluation.saebench.replay import read_record, write_record
from dbksvd.evaluation.saebench.replayed_blocks import ReplayedBlocks
from dbksvd.models.loading import LoadedModel, load_model

WIDTH, LENGTH, LAYER = 16, 12, 2
SIZES = {"vocab_size": 4 + len(WORDS), "max_position_embeddings": 32}
BLOCKS = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": WIDTH}


def make_model(kind: str) -> Any:
    """Return a random causal model of 3 blocks."""
    import transformers as hf

    torch.manual_seed(3)
    made = {
        "neox": lambda: hf.GPTNeoXForCausalLM(
            hf.GPTNeoXConfig(**SIZES, **BLOCKS, intermediate_size=32, initializer_range=0.3)
        ),
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(n_embd=WIDTH, n_layer=3, n_head=2, initializer_range=0.3, **SIZES)
        ),
        "llama": lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(
                **SIZES, **BLOCKS, intermediate_size=32, initializer_range=0.3,
                tie_word_embeddings=True,
            )
        ),
        # caps its logits behind the head
        "gemma2": lambda: hf.Gemma2ForCausalLM(
            hf.Gemma2Config(
                **SIZES, **BLOCKS, intermediate_size=32, initializer_range=0.3, head_dim=8,
                num_key_value_heads=1, final_logit_softcapping=3.0, attn_implementation="eager",
            )
        ),
    }  # fmt: skip
    return made[kind]().eval().requires_grad_(False)


def load(kind: str, tiny_causal: Path) -> LoadedModel:
    """Return a random model under the tokenizer of the fixture."""
    loaded = load_model({"name": str(tiny_causal), "device": "cpu"})
    loaded.tokenizer.pad_token = "[PAD]"
    return LoadedModel(**{**vars(loaded), "model": make_model(kind)})


def draw_tokens(rows: int = 6) -> torch.Tensor:
    return torch.randint(4, 4 + len(WORDS), (rows, LENGTH), generator=torch.manual_seed(0))


@pytest.mark.parametrize("kind", ["neox", "gpt2", "llama", "gemma2"])
def test_a_pass_from_a_known_block_is_the_whole_pass(kind, tiny_causal):
    model = SAEBenchModel(load(kind, tiny_causal), "tiny")
    tokens, blocks = draw_tokens(), ReplayedBlocks(model)
    names = [name_hook(layer) for layer in (1, 2, 3)]
    _, cache = model.run_with_cache(tokens, names_filter=names)
    whole = model(tokens, return_type="logits")
    ran: list[int] = []
    handles = [
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
        for index, block in enumerate(model.model.modules())
        if type(block).__name__.endswith(("MLP", "Attention"))
    ]
    for layer, name in enumerate(names, start=1):
        blocks.run(tokens[:1], layer, cache[name][:1])  # looks at the blocks once
        ran.clear()
        torch.testing.assert_close(blocks.run(tokens, layer, cache[name]), whole)
        assert len(ran) == 2 * (3 - layer)  # attention and MLP of the blocks above alone
    for handle in handles:
        handle.remove()
    assert blocks.check(tokens, {2: cache[names[1]], 3: cache[names[2]]})
    torch.testing.assert_close(model(tokens, return_type="logits"), whole, rtol=0, atol=0)


class _Leaking(torch.nn.Module):
    """A block that adds the output of the first block: its input alone does not tell its output."""

    def __init__(self, block: torch.nn.Module, seen: list[torch.Tensor]) -> None:
        super().__init__()
        self.block, self.seen = block, seen

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.block(*args, **kwargs)
        bare = output[0] if isinstance(output, tuple) else output
        return bare + self.seen[-1]


def test_a_model_whose_blocks_read_more_than_their_input_is_run_whole(tiny_causal):
    loaded, seen = load("neox", tiny_causal), []
    layers = loaded.model.gpt_neox.layers
    layers[2] = _Leaking(layers[2], seen)
    layers[0].register_forward_hook(
        lambda _m, inputs, _o: seen.append(inputs[0] if inputs else torch.zeros(1))
    )
    layers[0].register_forward_hook(
        lambda _m, _i, output: seen.append(5 * (output[0] if isinstance(output, tuple) else output))
    )
    model, tokens = SAEBenchModel(loaded, "leaking"), draw_tokens()
    _, cache = model.run_with_cache(tokens, names_filter=[name_hook(2), name_hook(3)])
    site = EvalSite("leaking", 2)
    record = record_losses(model, site, tokens, cache)
    assert not record["skips"]
    found = RecordedLosses(model, site, {"ids": tokens, **record}).measure(
        slice(0, 3), cache[name_hook(2)][:3]
    )
    _, loss = model(tokens[:3], return_type="both")
    torch.testing.assert_close(found["ce_loss_with_sae"], loss)
    assert found["kl_div_with_sae"].abs().max() < 1e-5


PLACES = ["residual_before", "attention", "mlp", "mlp_input"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("kind", "layer"), [("neox", 2), ("gpt2", 3), ("llama", 1), ("gemma2", 2)])
def test_losses_at_a_place_inside_a_block(kind, layer, place, tiny_causal):
    model, tokens = SAEBenchModel(load(kind, tiny_causal), "tiny"), draw_tokens()
    site = EvalSite("tiny", layer, place=place)
    _, cache = model.run_with_cache(tokens, names_filter=list_hooks(model, site))
    record = record_losses(model, site, tokens, cache)
    assert record["skips"]
    changed = cache[site.hook] * 0.5 + 0.1
    found = RecordedLosses(model, site, {"ids": tokens, **record}).measure(slice(2, 5), changed[2:5])  # fmt: skip
    logits, loss = model(tokens, return_type="both")
    torch.testing.assert_close(found["ce_loss_without_sae"], loss[2:5])
    for name, put in (("with_sae", changed), ("with_ablation", torch.zeros_like(changed))):
        hook = (site.hook, lambda _out, put=put, **_: put)  # the whole model, no block skipped
        other, whole = model.run_with_hooks(tokens, fwd_hooks=[hook], return_type="both")
        assert not torch.allclose(whole, loss, atol=1e-3)
        torch.testing.assert_close(found[f"ce_loss_{name}"], whole[2:5], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[f"kl_div_{name}"], measure_kl(logits, other)[2:5], atol=1e-5, rtol=1e-5)  # fmt: skip


class _Whole:
    """The model as SAEBench itself drives it: on the last batch, all of it, each time."""

    def __init__(self, replay: Any, model: SAEBenchModel) -> None:
        self.replay, self.model = replay, model

    def __call__(self, _tokens: torch.Tensor, **kwargs: Any) -> Any:
        return self.run_with_hooks(_tokens, fwd_hooks=[], **kwargs)

    def run_with_hooks(self, _tokens: torch.Tensor, **kwargs: Any) -> Any:
        return self.model.run_with_hooks(self.replay.ids[self.replay._rows], **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "place"), [("neox", "residual"), ("llama", "mlp")])
def test_all_numbers_of_core_are_those_of_saebench(kind, place, tiny_causal, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXTYPING_DISABLE", os.environ.get("JAXTYPING_DISABLE", "1"))
    from dbksvd.dictionaries.loading import load_sae
    from dbksvd.evaluation.saebench.evals import core
    from dbksvd.evaluation.saebench.results import read_metrics
    from dbksvd.evaluation.saebench.runner import place_sae
    from dbksvd.evaluation.saebench.shims import common
    from dbksvd.evaluation.saebench.shims.imports import import_quickly
    from dbksvd.evaluation.saebench.task import EvalTask

    import_quickly()
    loaded = load(kind, tiny_causal)
    model = SAEBenchModel(loaded, "tiny")
    tokens = draw_tokens(7)
    tokens[1, 3] = tokens[4, 7] = 0  # padding in the middle is no text
    site = EvalSite("tiny", LAYER, 0, "causal", None, place)
    write_record(model, tokens, site, tmp_path, losses=True)
    record = read_record(tmp_path)
    limit = float(record["activations"].norm(dim=-1).quantile(0.9))
    atoms = torch.nn.functional.normalize(torch.randn(32, WIDTH), dim=1)
    saved = tmp_path / "pursuit" / "m32"
    Dictionary(atoms, torch.zeros(WIDTH), PursuitSettings(3, nonnegative=True)).save(saved)
    settings = core.CoreSettings(texts=7, context_length=LENGTH, batch_size=3)

    def score(name: str) -> dict[str, Any]:
        sae = load_sae(saved)
        limited = EvalSite("tiny", LAYER, 0, "causal", limit, place)
        place_sae(sae, limited)
        output = tmp_path / name
        output.mkdir()
        core.run(EvalTask(sae, "d", limited, settings, tmp_path, output, lambda: loaded))
        return read_metrics(output)

    @contextlib.contextmanager
    def run_whole(module: Any, _measure: Any) -> Iterator[None]:
        own = module.get_recons_loss

        def get(sae: Any, replay: Any, *args: Any, **kwargs: Any) -> Any:
            return own(sae, _Whole(replay, model), *args, **kwargs)

        with patch.object(module, "get_recons_loss", get):
            yield

    recorded = score("recorded")
    with patch.object(common, "use_losses", run_whole):
        whole = score("whole")
    assert set(recorded) == set(whole)
    assert {"ce_loss_score", "kl_div_score", "kl_div_with_ablation"} <= set(whole)
    assert whole["ce_loss_with_sae"] != whole["ce_loss_without_sae"]
    for name, value in whole.items():
        assert recorded[name] == pytest.approx(value, abs=1e-5, rel=1e-5), name
