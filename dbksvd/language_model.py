"""A small GPT-NeoX language model, pretrained on prepared text: tokenizer, data, training loop.

It makes the evals that need a causal model run where no hub can be reached. Its batches depend on
the seed and the step only, so an interrupted training goes on to the same weights.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dbksvd.facts import read_facts
from dbksvd.files import hash_file, replace_folder, write_json
from dbksvd.language_model_checkpoint import load_training, save_training
from dbksvd.language_model_data import (
    SMALLEST_VOCABULARY,
    choose_rows,
    encode_documents,
    train_tokenizer,
)
from dbksvd.provenance import choose_device, describe_run, seed_everything
from dbksvd.settings import build_settings, check_at_least
from dbksvd.text import check_documents, iterate_documents

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LanguageModelSettings:
    """Sizes of the model and of its training.

    Parameters
    ----------
    layers, width, heads : int
        Blocks, hidden size d, attention heads.
    vocabulary : int
        Tokens of the byte-level BPE tokenizer, special ones counted.
    max_positions : int
        Longest input in tokens; sae-probes feeds up to 1,024.
    context_length : int
        Tokens of a training sequence.
    batch_size : int
        Sequences of a step.
    tokens : int
        Training tokens, counted each time they are used.
    heldout_tokens : int
        Most held-out tokens that the loss is measured on.
    lr : float
        Highest learning rate of AdamW; it warms up linearly, then falls to a tenth as a cosine.
    warm_up : float
        Fraction of the steps.
    weight_decay : float
        Of the weight matrices.
    seed : int
        Decides weights and order.
    measure_every : int
        Steps between two measurements of the held-out loss.
    checkpoint_seconds : float
        Seconds between two checkpoints.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    facts : dict, optional
        ``data`` and ``repeats`` of :func:`dbksvd.facts.read_facts`: a model of this size learns
        no facts from text, and RAVEL's eval needs some.
    """

    tokens: int
    layers: int = 4
    width: int = 256
    heads: int = 4
    vocabulary: int = 4096
    max_positions: int = 1024
    context_length: int = 256
    batch_size: int = 16
    heldout_tokens: int = 50_000
    lr: float = 2e-3
    warm_up: float = 0.05
    weight_decay: float = 0.1
    seed: int = 0
    measure_every: int = 100
    checkpoint_seconds: float = 60.0
    device: str = "auto"
    facts: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        counts = ("layers", "width", "heads", "batch_size", "heldout_tokens", "measure_every")
        check_at_least(1, "model.train", **{name: getattr(self, name) for name in counts})
        check_at_least(2, "model.train", context_length=self.context_length)
        check_at_least(self.step_tokens, "model.train", tokens=self.tokens)
        check_at_least(SMALLEST_VOCABULARY, "model.train", vocabulary=self.vocabulary)
        check_at_least(self.context_length, "model.train", max_positions=self.max_positions)
        if self.width % self.heads:
            raise ValueError(
                f"model.train.width: expected a multiple of heads = {self.heads}, got {self.width}"
            )

    @property
    def step_tokens(self) -> int:
        """Tokens of one step."""
        return self.batch_size * self.context_length

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.tokens // self.step_tokens


def train_language_model(
    settings: Mapping[str, Any], text: Path, output: Path, checkpoint: Path, *, gpus: int = 1
) -> dict[str, Any]:
    """Train tokenizer and model on the training documents; write a Hugging Face folder.

    Parameters
    ----------
    settings : mapping
        See :class:`LanguageModelSettings`.
    text : path
        Folder of :func:`dbksvd.text.prepare_text`; held-out documents are measured on only.
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
    checked = build_settings(LanguageModelSettings, settings, "model.train")
    device = choose_device(checked.device, gpus=gpus)
    manifest = check_documents(text)
    texts = {
        split: [document.text for document in iterate_documents(text, split)]
        for split in ("train", "heldout")
    }
    if checked.facts:
        texts["train"] += read_facts(Path(checked.facts["data"]), checked.facts["repeats"])
    content = hashlib.sha256("\0".join(texts["train"]).encode()).hexdigest()
    identity = {"settings": asdict(checked), "text": manifest["sha256"], "content": content}
    tokenizer = train_tokenizer(texts["train"], checked.vocabulary)
    data = {
        split: encode_documents(texts[split], tokenizer, checked.context_length, what=split)
        for split in texts
    }
    heldout = data["heldout"][: max(1, checked.heldout_tokens // checked.context_length)]
    logger.info("%d training tokens in the text, %d are used", data["train"].size, checked.tokens)
    model = build_model(checked, tokenizer).to(device)
    start = time.perf_counter()
    log = _run_steps(model, checked, data["train"], heldout, checkpoint, identity)
    sample = generate_sample(model, tokenizer)
    logger.info("sample: %s", sample)
    with replace_folder(output) as folder:
        model.to("cpu").save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        seal = {
            "files": {path.name: hash_file(path) for path in sorted(folder.iterdir())},
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "heldout_loss": log[-1]["heldout_loss"],
            "log": log,
            "sample": sample,
            "seconds": time.perf_counter() - start,
            "settings": asdict(checked),
            "run": describe_run(seed=checked.seed, device=device),
        }
    write_json(output.with_suffix(".json"), seal)
    return seal


def build_model(settings: LanguageModelSettings, tokenizer: Any) -> Any:
    """Return a GPT-NeoX with fresh weights, drawn by the seed."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    seed_everything(settings.seed)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
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
    )


def _run_steps(
    model: Any,
    settings: LanguageModelSettings,
    train: np.ndarray,
    heldout: np.ndarray,
    checkpoint: Path,
    identity: Mapping[str, Any],
) -> list[dict[str, float]]:
    """Run all steps, or those that a checkpoint leaves; return the log of measurements."""
    optimizer = _make_optimizer(model, settings)
    step, log = load_training(checkpoint, model, optimizer, identity)
    saved = time.perf_counter()
    with tqdm(total=settings.steps, initial=step, desc="train", unit=" steps") as bar:
        while step < settings.steps:
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * scale_rate(step, settings.steps, settings.warm_up)
            rows = choose_rows(len(train), step, settings.batch_size, settings.seed)
            loss = measure_loss(model, train[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            bar.update()
            if step % settings.measure_every == 0 or step == settings.steps:
                log.append(
                    {
                        "step": step,
                        "tokens": step * settings.step_tokens,
                        "train_loss": float(loss.detach()),
                        "heldout_loss": _measure_heldout(model, heldout, settings.batch_size),
                    }
                )
                logger.info("step %(step)d: held-out loss %(heldout_loss).3f nats", log[-1])
            if time.perf_counter() - saved >= settings.checkpoint_seconds:
                save_training(checkpoint, model, optimizer, identity, step, log)
                saved = time.perf_counter()
    return log


def _make_optimizer(model: Any, settings: LanguageModelSettings) -> torch.optim.AdamW:
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.95),
    )


def scale_rate(step: int, steps: int, warm_up: float) -> float:
    """Return the factor of the learning rate at `step`: up to 1 linearly, down to .1 as a cosine.

    Examples
    --------
    >>> [round(scale_rate(step, 100, 0.1), 2) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.55, 0.1]
    """
    rising = max(1, round(warm_up * steps))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def measure_loss(model: Any, rows: np.ndarray) -> Tensor:
    """Return the mean cross entropy (nats per token) of rows (b, t) of token ids."""
    ids = torch.from_numpy(rows.astype(np.int64)).to(model.device)
    logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def _measure_heldout(model: Any, rows: np.ndarray, batch_size: int) -> float:
    model.eval()
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    total = sum(float(measure_loss(model, batch)) * len(batch) for batch in batches)
    model.train()
    return total / len(rows)


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
