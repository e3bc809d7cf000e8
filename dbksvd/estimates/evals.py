"""How much text an eval reads, counted from its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Sets of SAEBench's sparse_probing on the hub have this many classes together, in 8 data sets.
HUB_CLASSES, LARGEST_CLASSES = 36, 5
# A word of absorption's vocabulary, with its prompt; words that begin with a letter, roughly.
WORD_TOKENS, WORDS = 12, 20_000
RAVEL_TOKENS = 24  # tokens of a prompt, roughly


@dataclass(frozen=True)
class EvalTexts:
    """What an eval reads, in tokens and seconds.

    Parameters
    ----------
    prepared : float
        Tokens that the model reads once, up to the layer.
    stored : float
        Tokens whose activations are kept on disk.
    held : float
        Tokens whose activations are in memory at the same time.
    coded : float
        Tokens that each dictionary codes.
    forward : float
        Tokens that the whole model reads for each dictionary, gradients counted as two more.
    host_seconds, prepare_seconds : float
        Probes on one CPU core for each dictionary, and once.
    """

    prepared: float = 0.0
    stored: float = 0.0
    held: float = 0.0
    coded: float = 0.0
    forward: float = 0.0
    host_seconds: float = 0.0
    prepare_seconds: float = 0.0


def count_eval(name: str, settings: Mapping[str, Any], kind: str) -> EvalTexts:
    """Return what an eval reads; one that reads no text counts as nothing.

    Parameters
    ----------
    name : str
        The eval.
    settings : mapping
        Its settings.
    kind : {"causal", "encoder"}
        Whether the model has a language-model head, and core so a loss.
    """
    count = _EVALS.get(name)
    return count(settings, kind) if count else EvalTexts()


def _count_core(settings: Mapping[str, Any], kind: str) -> EvalTexts:
    tokens = settings["texts"] * settings["context_length"]
    with_loss = kind == "causal" and settings.get("ce_loss", True)
    # The model as it is, with the dictionary inside, and with nothing inside; for loss and for KL.
    return EvalTexts(tokens, tokens, tokens, 2 * tokens, 6 * tokens if with_loss else 0)


def _count_probing(settings: Mapping[str, Any], _kind: str) -> EvalTexts:
    is_hub = settings.get("data") == "hub"
    classes, largest = (HUB_CLASSES, LARGEST_CLASSES) if is_hub else (3, 3)
    share = min(1.0, len(settings["datasets"]) / 8) if settings.get("datasets") else 1.0
    texts = (settings["train_size"] + settings["test_size"]) / 2 * settings["context_length"]
    seconds = 0.5 * classes * share
    tokens = classes * share * texts
    return EvalTexts(tokens, tokens, largest * texts, tokens, 0, seconds, seconds)


def _count_perturbation(settings: Mapping[str, Any], _kind: str) -> EvalTexts:
    # Hub: 2 sets with 4 pairs of classes (scr) or 5 classes (tpp); bundled: one set.
    classes = 16 if settings.get("data") == "hub" else 3
    texts = (settings["train_size"] + settings["test_size"]) / 2 * settings["context_length"]
    removed = len(settings["n_values"]) * classes
    tokens = classes * texts
    return EvalTexts(tokens, tokens, 6 * texts, tokens * (1 + removed / 10), 0, classes, classes)


def _count_sae_probes(settings: Mapping[str, Any], _kind: str) -> EvalTexts:
    sets, rows = len(settings["datasets"]), settings["rows"] or 4000
    read = sets * rows * settings["context_length"]
    return EvalTexts(read, sets * rows, sets * rows, sets * rows, 0, 0.75 * sets, 3.0 * sets)


def _count_judged(settings: Mapping[str, Any], _kind: str) -> EvalTexts:
    tokens = settings["total_tokens"]
    return EvalTexts(tokens, tokens, tokens, 2 * tokens, 0, 0.02 * settings["n_latents"])


def _count_absorption(_settings: Mapping[str, Any], _kind: str) -> EvalTexts:
    words = WORDS * WORD_TOKENS
    return EvalTexts(words, WORDS, WORDS, WORDS + words, words, 120, 60)


def _count_ravel(settings: Mapping[str, Any], _kind: str) -> EvalTexts:
    attributes = sum(map(len, settings["entities"].values()))
    pairs = 2 * attributes * settings.get("pairs", 5000) * RAVEL_TOKENS
    generated = settings.get("new_tokens", 6) / RAVEL_TOKENS
    trained = 2 * 3 * settings.get("epochs", 2) * 0.7 * pairs
    return EvalTexts(pairs, 0, 0, 2 * pairs, trained + 0.3 * pairs * (1 + generated))


def _count_mdl(settings: Mapping[str, Any], _kind: str) -> EvalTexts:
    stored = settings["texts"] * settings["context_length"]
    passes = 2 * len(settings["num_bins"]) * len(settings.get("k_values", [None]))
    return EvalTexts(stored, stored, stored, (10 + passes) * settings["tokens"])


_EVALS: dict[str, Callable[[Mapping[str, Any], str], EvalTexts]] = {
    "core": _count_core,
    "sparse_probing": _count_probing,
    "sparse_probing_sae_probes": _count_sae_probes,
    "tpp": _count_perturbation,
    "scr": _count_perturbation,
    "mdl": _count_mdl,
    "autointerp": _count_judged,
    "token_matching": _count_judged,
    "absorption": _count_absorption,
    "ravel": _count_ravel,
}
