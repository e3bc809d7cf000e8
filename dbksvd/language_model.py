"""A small GPT-NeoX language model, pretrained on prepared text.

It makes the evals that need a causal model run where no hub can be reached.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dbksvd.base.files import hash_file, write_json
from dbksvd.base.local_files import expand_user
from dbksvd.base.provenance import choose_device, describe_run, seed_everything
from dbksvd.base.saving import Folder, check_replaceable
from dbksvd.base.settings import parse
from dbksvd.facts import read_facts
from dbksvd.language_model_data import encode_documents, train_tokenizer
from dbksvd.language_model_settings import LanguageModelSettings
from dbksvd.language_model_steps import choose_precision, train_steps
from dbksvd.text.documents import check_documents, iterate_documents

logger = logging.getLogger(__name__)

MODEL_FOLDER = Folder(
    (
        *("config.json", "generation_config.json", "model*.safetensors*", "tokenizer*"),
        *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
        "chat_template.jinja",
    )
)


def train_language_model(
    settings: Mapping[str, Any] | LanguageModelSettings,
    text: Path,
    output: Path,
    checkpoint: Path,
    *,
    gpus: int = 1,
) -> dict[str, Any]:
    """Train tokenizer and model on the training documents; write a Hugging Face folder.

    Parameters
    ----------
    settings : LanguageModelSettings, or a mapping of the same keys
        Section ``model.train`` of the config.
    text : path
        Folder of :func:`dbksvd.text.documents.prepare_text`; held-out documents only measure.
    output : path
        Folder for model.safetensors, config.json and the tokenizer; replaced as a whole.
    checkpoint : path
        Folder for unfinished work; the caller removes it after success.
    gpus : int
        GPUs given to this job.

    Returns
    -------
    dict
        The seal: hashes, losses (nats per token), a sample of generated text, settings.

    Raises
    ------
    ValueError
        If a setting is not usable or the text is too short.
    """
    checked = parse(LanguageModelSettings, settings, "model.train")
    MODEL_FOLDER.check(output)
    check_replaceable(output.with_suffix(".json"), ("files", "heldout_loss"))
    device = choose_device(checked.device, gpus=gpus)
    manifest = check_documents(text)
    texts = {
        split: [document.text for document in iterate_documents(text, split)]
        for split in ("train", "heldout")
    }
    if checked.facts is not None:
        texts["train"] += read_facts(expand_user(checked.facts.data), checked.facts.repeats)
    content = hashlib.sha256("\0".join(texts["train"]).encode()).hexdigest()
    identity = {"settings": checked.dump(), "text": manifest["sha256"], "content": content}
    tokenizer = train_tokenizer(texts["train"], checked.vocabulary)
    data = {
        split: encode_documents(texts[split], tokenizer, checked.context_length, what=split)
        for split in texts
    }
    heldout = data["heldout"][: max(1, checked.heldout_tokens // checked.context_length)]
    logger.info("%d training tokens in the text, %d are used", data["train"].size, checked.tokens)
    model = build_model(checked, tokenizer, device)
    progress = train_steps(model, checked, data["train"], heldout, checkpoint, identity)
    sample = generate_sample(model, tokenizer)
    logger.info("sample: %s", sample)
    with MODEL_FOLDER.replace(output) as folder:
        model.to("cpu").save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        seal = {
            "files": {path.name: hash_file(path) for path in sorted(folder.iterdir())},
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "heldout_loss": progress.log[-1]["heldout_loss"],
            "log": progress.log,
            "sample": sample,
            "seconds": progress.seconds,
            "settings": checked.dump(),
            "precision": str(choose_precision(checked.precision, device)).removeprefix("torch."),
            "run": describe_run(seed=checked.seed, device=device),
        }
    write_json(output.with_suffix(".json"), seal)
    return seal


def build_model(settings: LanguageModelSettings, tokenizer: Any, device: torch.device) -> Any:
    """Return a GPT-NeoX with fresh weights, drawn by the seed."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    seed_everything(settings.seed)
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=4 * settings.width,
        max_position_embeddings=settings.max_positions,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # torch's fused attention trains a fifth slower than plain products on a CPU at this length
    attention = "sdpa" if device.type == "cuda" else "eager"
    return GPTNeoXForCausalLM._from_config(config, attn_implementation=attention).to(device)


@torch.no_grad()
def generate_sample(model: Any, tokenizer: Any, prompt: str = "The", tokens: int = 60) -> str:
    """Return `prompt` continued by `tokens` sampled tokens."""
    model.eval()
    ids = tokenizer(prompt, return_tensors="pt").to(model.device)
    generated = model.generate(
        input_ids=ids["input_ids"],
        attention_mask=ids["attention_mask"],
        max_new_tokens=tokens,
        do_sample=True,
        temperature=0.8,
        pad_token_id=tokenizer.pad_token_id,
    )
    return str(tokenizer.decode(generated[0], skip_special_tokens=True))
