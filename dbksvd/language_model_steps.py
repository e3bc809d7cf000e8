"""The training loop of a small language model: loss, optimizer, learning rate, checkpoints.

A step's batch depends on the seed and the step only, so an interrupted training goes on to the
same weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from dbksvd.language_model_checkpoint import TrainingProgress, load_training, save_training
from dbksvd.language_model_data import choose_rows
from dbksvd.language_model_settings import LanguageModelSettings

logger = logging.getLogger(__name__)

# Tokens whose logits are in memory at once. Blocks of a few megabytes are reused by the allocator;
# those of a whole batch are mapped and zeroed anew by the system, which costs more than the loss.
_LOSS_BLOCK = 512


def train_steps(
    model: Any,
    settings: LanguageModelSettings,
    train: np.ndarray,
    heldout: np.ndarray,
    checkpoint: Path,
    identity: Mapping[str, Any],
) -> TrainingProgress:
    """Run all steps, or those that a checkpoint leaves.

    Parameters
    ----------
    model : GPTNeoXForCausalLM
        Changed in place.
    settings : LanguageModelSettings
        Sizes and rates.
    train, heldout : ndarray of shape (rows, context length), integers
        Token ids; held-out rows are measured on only.
    checkpoint : Path
        Folder for unfinished work; the caller removes it after success.
    identity : mapping
        Settings and data, JSON-able; only a checkpoint of the same is used.

    Returns
    -------
    TrainingProgress
        Its log has step, tokens, training loss and held-out loss (nats per token) of each
        measurement.
    """
    optimizer = make_optimizer(model, settings)
    precision = choose_precision(settings.precision, model.device)
    logger.info("matrix products of the training: %s", precision)
    progress = load_training(checkpoint, model, optimizer, identity)
    saved = time.perf_counter()
    start = saved - progress.seconds
    model.train()
    with tqdm(total=settings.steps, initial=progress.step, desc="train", unit=" steps") as bar:
        while progress.step < settings.steps:
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * scale_rate(
                    progress.step, settings.steps, settings.warm_up
                )
            rows = choose_rows(len(train), progress.step, settings.batch_size, settings.seed)
            loss = measure_loss(model, train[rows], precision)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress.step += 1
            bar.update()
            if progress.step % settings.measure_every == 0 or progress.step == settings.steps:
                row = {
                    "step": progress.step,
                    "tokens": progress.step * settings.step_tokens,
                    "train_loss": float(loss.detach()),
                    "heldout_loss": _measure_heldout(model, heldout, settings, precision),
                }
                progress.log.append(row)
                logger.info("step %(step)d: held-out loss %(heldout_loss).3f nats", row)
            progress.seconds = time.perf_counter() - start
            if time.perf_counter() - saved >= settings.checkpoint_seconds:
                save_training(checkpoint, model, optimizer, identity, progress)
                saved = time.perf_counter()
    return progress


def make_optimizer(model: Any, settings: LanguageModelSettings) -> torch.optim.AdamW:
    """Return AdamW over all weights, with weight decay on the matrices only."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.95),
        fused=True,
    )


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the matrix products; ``"auto"`` is bfloat16 where the device has it.

    Examples
    --------
    >>> choose_precision("float32", torch.device("cpu"))
    torch.float32
    """
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        native = bool(features.get("avx512_bf16") or features.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


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


def measure_loss(model: Any, rows: np.ndarray, precision: torch.dtype = torch.float32) -> Tensor:
    """Return the mean cross entropy of the next token.

    Parameters
    ----------
    model : GPTNeoXForCausalLM
        Its inner model and its head are run one after the other.
    rows : ndarray of shape (b, t), integers
        Token ids.
    precision : torch.dtype
        Of the matrix products; softmax and loss are float32.

    Returns
    -------
    tensor of shape ()
        Nats per token, float32.
    """
    ids = torch.from_numpy(rows.astype(np.int64)).to(model.device)
    mixed = precision != torch.float32
    with torch.autocast(model.device.type, dtype=precision, enabled=mixed):
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        # The last token has no next one: cut here, where a row is narrow, not at the logits.
        hidden, targets = hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
        head = model.get_output_embeddings()
        sums = [
            functional.cross_entropy(head(block).float(), target, reduction="sum")
            for block, target in zip(
                hidden.split(_LOSS_BLOCK), targets.split(_LOSS_BLOCK), strict=True
            )
        ]
    return torch.stack(sums).sum() / targets.numel()


@torch.no_grad()
def _measure_heldout(
    model: Any, rows: np.ndarray, settings: LanguageModelSettings, precision: torch.dtype
) -> float:
    model.eval()
    size = settings.batch_size
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    total = sum(float(measure_loss(model, batch, precision)) * len(batch) for batch in batches)
    model.train()
    return total / len(rows)
