"""Words that absorption reads: drawn by the seed, at most so many of each letter."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from dbksvd.evaluation.saebench.evals.absorption import AbsorptionSettings
from dbksvd.evaluation.saebench.evals.absorption_prompts import RecordingModel, ReplayingModel
from dbksvd.evaluation.saebench.model import SAEBenchModel
from dbksvd.evaluation.saebench.shims.causal import draw_words

WORDS = sorted(
    [f" {letter}{end}" for letter in "abC" for end in "klmnop"] + ["Ax", "ay", "bz", "zoo"]
)


def test_words_are_bounded_by_letter_and_drawn_by_seed():
    drawn = draw_words(WORDS, 3, 0)
    counts = Counter(word.strip()[0].lower() for word in drawn)
    assert counts == {"a": 3, "b": 3, "c": 3, "z": 1}
    assert drawn == sorted(drawn)
    assert set(drawn) <= set(WORDS)
    assert draw_words(WORDS, 3, 0) == drawn
    assert any(draw_words(WORDS, 3, seed) != drawn for seed in (1, 2))
    assert draw_words(WORDS, 100, 0) == WORDS


def test_too_few_words_are_refused():
    assert AbsorptionSettings().words_per_letter is None
    with pytest.raises(ValidationError, match="words_per_letter"):
        AbsorptionSettings(words_per_letter=5)


def test_recorded_prompts_are_looked_up_and_others_run(monkeypatch, tmp_path):
    asked: list[list[str]] = []

    def read(_self, texts, *, names_filter, **_kwargs):
        asked.append(list(texts))
        rows = torch.tensor([[[float(ord(c))] * 2 for c in text] for text in texts])
        return None, dict.fromkeys(names_filter, rows)

    def make(self, loaded, _name):
        self.cfg = SimpleNamespace(d_model=2)

    monkeypatch.setattr(SAEBenchModel, "run_with_cache", read)
    monkeypatch.setattr(SAEBenchModel, "__init__", make)
    recorder = RecordingModel(None, "m", -3)  # type: ignore[arg-type]
    recorder.run_with_cache(["early"], names_filter=["h"])
    recorder.forget()
    recorder.run_with_cache(["abcde", "vwxyz"], names_filter=["h"])
    recorder.write(tmp_path)
    asked.clear()
    loaded = SimpleNamespace(device=torch.device("cpu"))
    replaying = ReplayingModel(loaded, "m", -3, tmp_path)  # type: ignore[arg-type]
    _, cache = replaying.run_with_cache(["vwxyz", "abcde"], names_filter=["h"])
    assert asked == []
    assert cache["h"][:, -3].tolist() == [[ord("x")] * 2, [ord("c")] * 2]
    replaying.run_with_cache(["abcde", "early"], names_filter=["h"])
    assert asked == [["abcde", "early"]]
