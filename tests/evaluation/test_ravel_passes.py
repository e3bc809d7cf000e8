"""ravel's masks, trained on shortened passes and on SAEBench's own."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import WORDS
from test_core_losses import LAYER, WIDTH, load

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel
from dbksvd.evaluation.saebench.runner import place_sae
from dbksvd.evaluation.saebench.shims import causal, ravel_passes

ROWS, LENGTH, PAD = 6, 9, 0


def draw_batches(draw: torch.Generator) -> list[tuple[Any, ...]]:
    """Return two batches of pairs of prompts, padded on the left, as ravel makes them."""

    def draw_prompts() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        ids = torch.randint(4, 4 + len(WORDS), (ROWS, LENGTH), generator=draw)
        ids[torch.arange(LENGTH) < torch.arange(ROWS)[:, None] % 3] = PAD
        mask = (ids != PAD).long()
        return {"input_ids": ids, "attention_mask": mask}, torch.full((ROWS,), -4)

    batches = []
    for _ in range(2):
        (base, base_at), (source, source_at) = draw_prompts(), draw_prompts()
        labels = torch.randint(4, 4 + len(WORDS), (2, ROWS), generator=draw)
        batches.append((base, source, base_at, source_at, *labels, ["text"] * ROWS, ["x"] * ROWS))
    return batches


@pytest.mark.parametrize("kind", ["neox", "llama"])
def test_masks_are_those_of_whole_passes(kind, tiny_causal, tmp_path):
    from sae_bench.evals.ravel import main, mdbm
    from sae_bench.sae_bench_utils import general_utils

    from dbksvd.dictionaries.loading import load_sae

    loaded = load(kind, tiny_causal)
    model = SAEBenchModel(loaded, "tiny")
    atoms = torch.nn.functional.normalize(torch.randn(32, WIDTH), dim=1)
    saved = Path(tmp_path) / "m32"
    Dictionary(atoms, torch.zeros(WIDTH), PursuitSettings(3, nonnegative=True)).save(saved)
    sae = load_sae(saved)
    place_sae(sae, EvalSite("tiny", LAYER, 0, "causal"))
    _, sae, _ = general_utils.load_and_format_sae("d", sae, "cpu")
    batches = draw_batches(torch.Generator().manual_seed(0))
    config = SimpleNamespace(llm_batch_size=ROWS, num_epochs=3, learning_rate=0.1)
    read: list[int] = []
    upper = loaded.model.get_decoder().layers[0]
    upper.register_forward_hook(lambda *_: read.append(1))

    def train(shortened: contextlib.AbstractContextManager[None]) -> tuple[torch.Tensor, float]:
        torch.manual_seed(0)
        with causal.use_transformers_model(main, model), shortened:
            first = mdbm.MDBM(loaded.model, loaded.tokenizer, config, sae)
            logits, _ = first(*batches[0][:4])
            read.clear()
            trained = mdbm.train_mdbm(loaded.model, loaded.tokenizer, config, sae, batches, batches)
            loss = mdbm.get_validation_loss(trained, batches)[0]
        assert logits.shape == (ROWS, 4 + len(WORDS))
        return trained.binary_mask.detach().clone(), loss

    whole, whole_loss = train(contextlib.nullcontext())
    assert len(read) == 2 * (3 + 1) * 2  # base and source in each epoch, and to validate
    short, short_loss = train(ravel_passes.shorten_passes(loaded, model, LAYER))
    assert whole.abs().max() > 0.05
    torch.testing.assert_close(short, whole, rtol=1e-4, atol=1e-4)
    assert short_loss == pytest.approx(whole_loss, rel=1e-5)
