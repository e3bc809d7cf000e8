from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
import shape_checks
import torch
from hypothesis import settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell's background jobs ignore Ctrl-C, and so would the processes that tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# what torch wants before it promises deterministic products on CUDA
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
if not torch.cuda.is_available():
    # read when Triton is first imported, which SAELens does too: so it must be set before any test
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Property tests draw the same examples in every run; `make fuzz` draws new ones each time.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.register_profile("fuzz", database=None, deadline=None, print_blob=True)
settings.load_profile("repeatable")
if hasattr(providers, "_get_local_constants"):
    # Hypothesis draws constants of the modules imported so far, which other tests decide.
    providers._get_local_constants = Constants

shape_checks.install()  # before any module of the package is imported

LINE = (
    "the a small large dog cat bird tree house river runs sleeps eats sees finds under over near "
    "red green blue old new and or not very quickly today tomorrow"
)
WORDS = LINE.split()


def _make_sentences(count: int, *, seed: int = 0, most_words: int = 12) -> list[str]:
    """Return `count` different sentences over WORDS."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(draw.choices(WORDS, k=draw.randint(3, most_words)))] = None
    return list(found)


@pytest.fixture(scope="session")
def make_sentences():
    """Return the function that makes (count, seed=0, most_words=12) different sentences."""
    return _make_sentences


def _make_tokenizer(*, special: bool):
    """Return a word tokenizer, with [CLS] and [SEP] around every text if `special`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate(names + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if not special:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    """Folder of a random BERT encoder: 3 layers, d = 16."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-encoder"
    BertModel(config).save_pretrained(folder)
    _make_tokenizer(special=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory) -> Path:
    """Folder of a random GPT-NeoX language model: 3 layers, d = 16, no padding token."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(1)
    config = GPTNeoXConfig(
        vocab_size=4 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-causal"
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    _make_tokenizer(special=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory) -> Path:
    """Folder of `prepare_text` with 200 short documents, about a quarter held out."""
    from dbksvd.text.documents import prepare_text

    folder = tmp_path_factory.mktemp("text")
    (folder / "source.txt").write_text("\n".join(_make_sentences(200)))
    settings = {
        "sources": [{"kind": "file", "path": str(folder / "source.txt")}],
        "max_documents": 200,
        "heldout_fraction": 0.25,
    }
    prepare_text(settings, folder / "text")
    return folder / "text"
