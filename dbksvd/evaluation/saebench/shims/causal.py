"""As :mod:`dbksvd.evaluation.saebench.shims.common`, for mdl, autointerp, absorption and ravel."""

from __future__ import annotations

import logging
import random
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

# --- mdl ----------------------------------------------------------------------------------------


def stand_in_for_loguru() -> None:
    """Let mdl be imported: it needs loguru, which sae-bench does not declare."""
    if "loguru" not in sys.modules:
        module = ModuleType("loguru")
        module.logger = logging.getLogger("sae_bench.mdl")  # type: ignore[attr-defined]
        sys.modules["loguru"] = module


class Placeholder:
    """A model that is only moved: mdl loads one and then reads activations from its store."""

    def to(self, *_args: Any, **_kwargs: Any) -> Placeholder:
        """Do nothing."""
        return self


@contextmanager
def use_store(module: ModuleType, store: Any) -> Iterator[None]:
    """Let mdl read `store`: it would stream text from the hub."""
    replacement = SimpleNamespace(from_sae=lambda *_args, **_kwargs: store)
    with patch.object(module, "ActivationsStore", replacement):
        yield


@contextmanager
def allow_no_cuda(device: str) -> Iterator[None]:
    """Make ``.cuda()`` do nothing without a CUDA device: mdl calls it whatever the device is."""
    with ExitStack() as stack:
        if not device.startswith("cuda"):
            stack.enter_context(patch.object(torch.Tensor, "cuda", lambda tensor: tensor))
        yield


@contextmanager
def share_config(module: ModuleType, config: Any) -> Iterator[None]:
    """Set mdl's module-global ``config``: its functions read that, not what they are given."""
    with patch.object(module, "config", config, create=True):
        yield


@contextmanager
def scale_latents(sae: Any, factor: float) -> Iterator[None]:
    """Multiply latents by `factor` and divide before decoding: the same dictionary.

    mdl's bins end at the largest activation, but at 100 at least, so that smaller ones would all
    fall into the first bin.
    """
    encode, decode = sae.encode, sae.decode
    with (
        patch.object(sae, "encode", lambda x: encode(x) * factor),
        patch.object(sae, "decode", lambda latents: decode(latents / factor)),
    ):
        yield


# --- autointerp ---------------------------------------------------------------------------------


@contextmanager
def serve_tokens(tokens: Tensor) -> Iterator[None]:
    """Give autointerp the prepared rows of tokens: it would stream text from the hub."""
    from sae_bench.sae_bench_utils import dataset_utils

    with patch.object(dataset_utils, "load_and_tokenize_dataset", lambda *_a, **_k: tokens):
        yield


@contextmanager
def use_judge(
    autointerp: type, judge: Callable[[list[dict[str, str]], int], str]
) -> Iterator[None]:
    """Let `judge` answer: autointerp has one model of one company built in.

    The example answer in its scoring prompt is drawn from the global generator in the order in
    which calls return; it is seeded by the prompt's content, so that questions repeat exactly.
    """
    get_scoring_prompts = autointerp.get_scoring_prompts  # type: ignore[attr-defined]

    def ask(
        _self: Any, messages: list[dict[str, str]], max_tokens: int, _n: int = 1
    ) -> tuple[list[str], str]:
        return [judge(messages, max_tokens)], ""

    def get_seeded(self: Any, explanation: str, scoring_examples: Any) -> Any:
        content = explanation + "".join(example.to_str() for example in scoring_examples)
        random.seed(zlib.crc32(content.encode()))
        return get_scoring_prompts(self, explanation, scoring_examples)

    with patch.multiple(autointerp, get_api_response=ask, get_scoring_prompts=get_seeded):
        yield


# --- absorption ---------------------------------------------------------------------------------


@contextmanager
def filter_words(template: str, per_letter: int | None = None, seed: int = 0) -> Iterator[None]:
    """Keep the words that are one token in a prompt: absorption stops at the first that is not.

    It reads one fixed position of all prompts, and a vocabulary may hold words that its own
    tokenizer splits when they stand alone. Words come sorted: a tokenizer lists them in another
    order in every process, and what absorption draws from them would differ.

    Parameters
    ----------
    template : str
        A prompt, with ``{word}`` for the word.
    per_letter : int, optional
        Words that begin with each letter, at most; by default all.
    seed : int
        Which of them.
    """
    from sae_bench.evals.absorption import common, feature_absorption, vocab

    get_alpha_tokens = vocab.get_alpha_tokens

    def get_whole_tokens(tokenizer: Any, *args: Any, **kwargs: Any) -> list[str]:
        words = sorted(get_alpha_tokens(tokenizer, *args, **kwargs))
        prompts = ["\n" + template.format(word=word) for word in words]
        wanted = 2 + len(
            tokenizer(template.replace("{word}", ""), add_special_tokens=False).input_ids
        )
        lengths = map(len, tokenizer(prompts, add_special_tokens=False)["input_ids"])
        whole = [word for word, length in zip(words, lengths, strict=True) if length == wanted]
        return whole if per_letter is None else draw_words(whole, per_letter, seed)

    with (
        patch.object(common, "get_alpha_tokens", get_whole_tokens),
        patch.object(feature_absorption, "get_alpha_tokens", get_whole_tokens),
    ):
        yield


def draw_words(words: list[str], per_letter: int, seed: int) -> list[str]:
    """Return at most `per_letter` of the words that begin with each letter, in their order."""
    shuffled = random.Random(seed).sample(range(len(words)), len(words))
    counts: Counter[str] = Counter()
    chosen = []
    for place in shuffled:
        letter = words[place].strip()[:1].lower()
        counts[letter] += 1
        if counts[letter] <= per_letter:
            chosen.append(place)
    return [words[place] for place in sorted(chosen)]


@contextmanager
def place_absorption(module: ModuleType, probes: Path, scratch: Path) -> Iterator[None]:
    """Read probes from `probes` and write to `scratch`: absorption uses its package's folder."""
    sparse = scratch / "k_sparse_probing"
    probing = partial(
        module.run_k_sparse_probing_experiment, experiment_dir=sparse, probes_dir=probes
    )
    absorption = partial(
        module.run_feature_absortion_experiment,
        experiment_dir=scratch / "feature_absorption",
        sparse_probing_experiment_dir=sparse,
        probes_dir=probes,
    )
    with patch.multiple(
        module,
        run_k_sparse_probing_experiment=probing,
        run_feature_absortion_experiment=absorption,
    ):
        yield


# --- ravel --------------------------------------------------------------------------------------


@contextmanager
def read_entity_end(tokenizer: Any) -> Iterator[None]:
    """Point ravel at the last token of the entity: it relies on a bos token to get there.

    It counts the tokens behind the entity with one bos token among them; without bos it would
    take the token after the entity.
    """
    from sae_bench.evals.ravel.instance import RAVELInstance

    build = RAVELInstance.build_and_tokenize_prompts
    shift = 0 if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else 1

    def build_shifted(self: Any, *args: Any, **kwargs: Any) -> Any:
        prompts = build(self, *args, **kwargs)
        for prompt in prompts:
            prompt.final_entity_token_pos -= shift
        return prompts

    with patch.object(RAVELInstance, "build_and_tokenize_prompts", build_shifted):
        yield


@contextmanager
def sort_by_length() -> Iterator[None]:
    """Let ravel continue prompts in order of length: it pads each to the longest of its batch."""
    from sae_bench.evals.ravel import instance

    generate = instance.generate_batched

    def generate_sorted(model: Any, tokenizer: Any, **kwargs: Any) -> tuple[list[str], list[int]]:
        prompts = kwargs.pop("input_ids_BL")
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        texts, first = generate(
            model, tokenizer, input_ids_BL=[prompts[place] for place in order], **kwargs
        )
        back = sorted(range(len(order)), key=order.__getitem__)
        return [texts[place] for place in back], [first[place] for place in back]

    with patch.object(instance, "generate_batched", generate_sorted):
        yield


class _TupleOutputs:
    """A block whose forward hooks see a tuple, as before transformers 5."""

    def __init__(self, block: torch.nn.Module) -> None:
        self._block = block

    def register_forward_hook(self, hook: Callable[..., Any]) -> Any:
        """Register `hook`; a bare tensor is wrapped for it and unwrapped after it."""

        def adapted(module: Any, inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return hook(module, inputs, output)
            return hook(module, inputs, (output,))[0]

        return self._block.register_forward_hook(adapted)


@contextmanager
def use_transformers_model(module: ModuleType, model: Any) -> Iterator[None]:
    """Let ravel use a loaded model of any architecture: it knows two models, by hub names.

    Its hooks expect blocks to return a tuple, which transformers 5 blocks do not.
    """
    from sae_bench.sae_bench_utils import activation_collection

    name = model.cfg.model_name

    def load(result: Any) -> SimpleNamespace:
        return SimpleNamespace(from_pretrained=lambda *_args, **_kwargs: result)

    def get_module(_model: Any, layer: int) -> _TupleOutputs:
        return _TupleOutputs(model.blocks[layer])

    with (
        patch.object(module, "AutoModelForCausalLM", load(model.model)),
        patch.object(module, "AutoTokenizer", load(model.tokenizer)),
        patch.dict(module.LLM_NAME_MAP, {name: name}),
        patch.object(activation_collection, "get_module", get_module),
    ):
        yield
