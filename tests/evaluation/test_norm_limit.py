"""Positions over the norm limit, in the evals that need more than a mask of a record."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from dbksvd.evaluation.saebench.last_text_token import LastTextTokenModel
from dbksvd.evaluation.saebench.model import SAEBenchModel
from dbksvd.evaluation.saebench.replay import ReplayModel, ReplayStore, read_record, write_record
from dbksvd.evaluation.saebench.runner import _find_site
from dbksvd.evaluation.saebench.shims.norm_limit import find_over, keep_over, silence_over
from dbksvd.models.loading import load_model


@pytest.fixture
def causal(tiny_causal):
    loaded = load_model({"name": str(tiny_causal), "device": "cpu"})
    loaded.tokenizer.eos_token = "[SEP]"
    return loaded


def plant(loaded, position: int | None = None, token: int | None = None) -> None:
    """Let the first block add a massive activation at a position, or where a token stands."""
    seen: list[torch.Tensor] = []
    loaded.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )

    def add(_module, _inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        where = torch.zeros(hidden.shape[:2], dtype=torch.bool)
        if position is not None:
            where[:, position] = True
        if token is not None:
            where |= seen[-1] == token
        hidden[where] += 500
        return output

    loaded.model.gpt_neox.layers[0].register_forward_hook(add)


def test_no_limit_no_position():
    x = torch.tensor([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]])
    assert find_over(x, None).tolist() == [False] * 3
    assert find_over(x, 49.9).tolist() == [False, True, False]
    assert find_over(x[None].half(), 50.1).tolist() == [[False] * 3]


def test_a_record_counts_what_is_over_the_limit_as_special(causal, tmp_path):
    plant(causal, position=0, token=7)
    model = SAEBenchModel(causal, "tiny")
    tokens = torch.tensor([[5, 6, 7, 8, 3], [9, 7, 7, 10, 11]])  # 3 is eos and pad
    site = SimpleNamespace(hook="blocks.1.hook_resid_post")
    write_record(model, tokens, site, tmp_path)  # type: ignore[arg-type]
    whole, record = read_record(tmp_path), read_record(tmp_path, norm_limit=100.0)
    assert whole["text"].tolist() == [[True] * 4 + [False], [True] * 5]
    expected = [[False, True, False, True, False], [False, False, False, True, True]]
    assert record["text"].tolist() == expected
    replayed = ReplayModel(record)
    assert (replayed.get_batch_tokens(2) == ReplayModel.IGNORED).tolist() == [
        [not kept for kept in row] for row in expected
    ]
    assert len(ReplayStore(record, 2).rows) == 4


@pytest.mark.parametrize("where", ["encoder", "causal"])
def test_the_last_token_under_the_limit_is_probed(tiny_encoder, causal, where):
    loaded = causal
    if where == "encoder":
        loaded = load_model({"name": str(tiny_encoder), "device": "cpu"})
    else:
        plant(loaded, position=0, token=7)
    tokens = torch.tensor([[5, 6, 8, 7, 7], [7, 7, 7, 7, 7], [5, 6, 7, 8, 9]])
    hook = "blocks.1.hook_resid_post"
    _, plain = LastTextTokenModel(loaded, "tiny").run_with_cache(tokens, names_filter=hook)
    limited = LastTextTokenModel(loaded, "tiny", norm_limit=100.0)
    _, filled = limited.run_with_cache(tokens, names_filter=hook)
    if where == "encoder":  # nothing is over the limit
        assert torch.equal(filled[hook], plain[hook])
        return
    last = filled[hook][:, -1]
    assert torch.equal(last[0], plain[hook][0, 2])
    assert torch.equal(last[1], torch.zeros(16))
    assert torch.equal(last[2], plain[hook][2, 4])


class Shifted:
    """A dictionary that codes x as x + 1."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def test_codes_over_the_limit_are_zero_inside_the_block_only():
    sae = Shifted()
    x = torch.tensor([[[1.0, 2.0], [300.0, 400.0]]])
    with silence_over(sae, 100.0):
        assert sae.encode(x).tolist() == [[[2.0, 3.0], [0.0, 0.0]]]
        assert sae.encode(x[0, 1:]).tolist() == [[0.0, 0.0]]
    assert sae.encode(x)[0, 1].tolist() == [301.0, 401.0]
    with silence_over(sae, None):
        assert sae.encode(x)[0, 1].tolist() == [301.0, 401.0]


def test_ravel_changes_nothing_at_a_sink():
    from sae_bench.evals.ravel.mdbm import MDBM

    fake = SimpleNamespace(
        sae=SimpleNamespace(encode=lambda x: x, decode=lambda z: z),
        binary_mask=torch.ones(2, requires_grad=True),
        temperature=1.0,
    )
    residual = torch.arange(12.0).view(3, 2, 2)
    residual[1, 0] = 500.0
    source = torch.tensor([[-1.0, -2.0], [-3.0, -4.0], [900.0, 0.0]])
    positions = torch.tensor([1, 0, 1])
    for limit, changed in ((100.0, [0]), (None, [0, 1, 2])):
        with keep_over(limit):
            hook = MDBM.create_intervention_hook(fake, source, positions)
            (out,) = hook(None, None, (residual.clone(),))
        expected = residual.clone()
        for row in changed:
            expected[row, positions[row]] = source[row]
        assert torch.equal(out, expected)
        with keep_over(limit):
            hook = MDBM.create_intervention_hook(fake, source, positions, training_mode=True)
            (out,) = hook(None, None, (residual.clone(),))
        (gradient,) = torch.autograd.grad(out.sum(), fake.binary_mask)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0


def test_a_preparation_of_another_limit_is_refused():
    site = {"model_name": "m", "layer": 2, "seed": 0, "kind": "causal", "norm_limit": 7.0}
    assert _find_site("sparse_probing", {"site": site}, 7.0).norm_limit == 7.0
    with pytest.raises(
        ValueError, match=r"prepared with the norm limit 7\.0, the shards have 8\.0"
    ):
        _find_site("sparse_probing", {"site": site}, 8.0)
    assert _find_site("core", {"site": {**site, "norm_limit": None}}, 8.0).norm_limit == 8.0


def test_a_token_before_every_text_is_bos_where_none_is_named(tiny_causal):
    from tokenizers import processors

    loaded = load_model({"name": str(tiny_causal), "device": "cpu"})
    loaded.tokenizer.eos_token = "[SEP]"
    assert SAEBenchModel(loaded, "m").tokenizer.bos_token is None
    loaded.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 2)]
    )
    model = SAEBenchModel(loaded, "m")
    assert model.tokenizer.bos_token == "[CLS]"
    assert model.mask_text(torch.tensor([[2, 5, 6, 3]])).tolist() == [[False, True, True, False]]
