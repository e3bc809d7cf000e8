"""A tiny language model that knows facts of entities, each attribute in a subspace of its own."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from torch import Tensor

WIDTH, PART = 32, 8  # of the residual stream, and of the subspace of an attribute
COUNTRIES = ["France", "Japan", "Kenya", "Peru", "Canada"]
CONTINENTS = ["North", "South", "East"]
CITIES = [f"city{number}" for number in range(45)]
# Every country lies on every continent: neither says anything of the other.
FACTS = {
    city: {"Country": COUNTRIES[place % 5], "Continent": CONTINENTS[place // 5 % 3]}
    for place, city in enumerate(CITIES)
}
TEMPLATES = {
    "Country": ["the country of %s is", "in %s the country is called"],
    "Continent": ["the continent of %s is", "in %s the continent is called"],
}
LAYER = 1  # its output is the embedding, in which the attributes are planted


def write_ravel(folder: Path) -> Path:
    """Write RAVEL's four files of the facts; return their folder."""
    prompts = {prompt: "train" for own in TEMPLATES.values() for prompt in own}
    (folder / "base").mkdir(parents=True)
    for name, content in {
        "entity_attributes": FACTS,
        "attribute_to_prompts": TEMPLATES,
        "prompt_to_split": prompts,
        "entity_to_split": dict.fromkeys(CITIES, "train"),
    }.items():
        (folder / "base" / f"ravel_city_{name}.json").write_text(json.dumps(content))
    return folder


def save_planted_model(folder: Path, steps: int = 300) -> Tensor:
    """Save a GPT-NeoX of 2 blocks that answers the facts; return the planted directions (d, d).

    A city's embedding is the sum of a vector for its country, in the span of the first `PART`
    orthonormal directions, and one for its continent, in that of the next. The first block does
    nothing; the second learns to answer, from examples that show no fact but the city's own.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    words = sorted({word for own in TEMPLATES.values() for text in own for word in text.split()})
    names = ["[UNK]", ".", *words, *COUNTRIES, *CONTINENTS, *CITIES]
    vocabulary = {name: place for place, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", eos_token=".", pad_token="."
    )
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=1,
    )
    model = GPTNeoXForCausalLM(config)
    directions = torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q.T
    plant_(model, fast, directions)
    draw = random.Random(0)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=5e-3)
    for _ in range(steps):
        texts = [write_text(draw) for _ in range(32)]
        rows = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(fast(text)["input_ids"]) for text in texts], batch_first=True
        )
        optimiser.zero_grad()
        model(input_ids=rows, labels=rows.masked_fill(rows == 0, -100)).loss.backward()
        optimiser.step()
    model.eval().save_pretrained(folder)
    fast.save_pretrained(folder)
    return directions


def plant_(model, tokenizer, directions: Tensor) -> None:
    """Write the cities' embeddings, let the first block do nothing, and keep both as they are."""
    embedding, block = model.gpt_neox.embed_in.weight, model.gpt_neox.layers[0]
    parts = {"Country": directions[:PART], "Continent": directions[PART : 2 * PART]}
    codes = {
        label: torch.nn.functional.normalize(torch.randn(PART), dim=0)
        for label in [*COUNTRIES, *CONTINENTS]
    }
    with torch.no_grad():
        # Words lie in the rest of the space.
        embedding.copy_(torch.randn(len(embedding), WIDTH - 2 * PART) @ directions[2 * PART :])
        for city, own in FACTS.items():
            row = tokenizer.convert_tokens_to_ids(city)
            embedding[row] = sum(3 * codes[label] @ parts[name] for name, label in own.items())
        for weight in (block.attention.dense, block.mlp.dense_4h_to_h):
            weight.weight.zero_()
            weight.bias.zero_()
    embedding.requires_grad_(False)
    block.requires_grad_(False)


def write_text(draw: random.Random) -> str:
    """Return a few questions of one attribute with their answers."""
    attribute = draw.choice(list(TEMPLATES))
    template = draw.choice(TEMPLATES[attribute])
    cities = draw.sample(CITIES, 3)
    return " ".join(f"{template % city} {FACTS[city][attribute]}." for city in cities)
