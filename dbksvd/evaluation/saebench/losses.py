"""CE loss and KL with a dictionary inside a causal model, from what no dictionary changes.

SAEBench's core runs the whole model three times for each dictionary: as it is, with the site
zeroed, and with the dictionary inside. The first two are the same for all dictionaries. Their
losses are recorded, with the output of the last block, which the original logits are made of anew:
the logits themselves would take gigabytes. For a dictionary only the blocks above the site are run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dbksvd.base.site import RESIDUAL
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel, name_hook
from dbksvd.evaluation.saebench.replayed_blocks import ReplayedBlocks

LOGITS = 2**25  # of one pass: 128 MiB
CHUNK = 128  # tokens whose logits are compared at a time


def record_losses(
    model: SAEBenchModel, site: EvalSite, tokens: Tensor, known: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return what `RecordedLosses` needs beside tokens and activations.

    Parameters
    ----------
    model : SAEBenchModel
        A causal model.
    site : EvalSite
        Where dictionaries are put.
    tokens : int64 tensor of shape (b, t)
        Rows of tokens, none of them padded.
    known : mapping of str to float32 tensor of shape (b, t, d)
        What is at the places that :func:`list_hooks` names.

    Returns
    -------
    dict of tensors
        ``final``, the last block's output; ``below`` for a place inside a block, what it reads;
        ``ce_loss_without_sae`` and ``ce_loss_with_ablation`` (b, t - 1) and
        ``kl_div_with_ablation`` (b, t), in nats; ``skips`` (a bool), whether blocks may be skipped.
    """
    few = slice(0, 2)
    blocks = ReplayedBlocks(model)
    final = known[name_hook(blocks.last)]
    outputs = {blocks.last: final[few]}
    if site.place == RESIDUAL:
        outputs[site.layer] = known[site.hook][few]
    elif site.layer > 1:
        outputs[site.layer - 1] = known[site.below][few]
    blocks.skips = blocks.check(tokens[few], outputs)
    ablated = _Ablation(blocks, site, tokens, known)
    found: dict[str, list[Tensor]] = {}
    for rows in _split(model, tokens):
        original = blocks.run(tokens[rows], blocks.last, final[rows])
        zeroed = ablated.run(rows)
        losses = {
            "ce_loss_without_sae": measure_ce(original, tokens[rows]),
            "ce_loss_with_ablation": measure_ce(zeroed, tokens[rows]),
            "kl_div_with_ablation": measure_kl(original, zeroed),
        }
        for name, loss in losses.items():
            found.setdefault(name, []).append(loss.cpu())
    recorded = {name: torch.cat(losses) for name, losses in found.items()}
    below = {} if site.place == RESIDUAL else {"below": known[site.below].cpu()}
    return recorded | {"final": final.cpu(), "skips": torch.tensor(blocks.skips), **below}


def list_hooks(model: SAEBenchModel, site: EvalSite) -> list[str]:
    """Return the names of what has to be known of a pass for :func:`record_losses`."""
    below = set() if site.place == RESIDUAL else {site.below}
    return sorted({site.hook, name_hook(len(model.blocks)), *below})


class RecordedLosses:
    """Losses of a causal model with a dictionary inside, beside the recorded ones.

    Parameters
    ----------
    model : SAEBenchModel
        The causal model.
    site : EvalSite
        Where dictionaries are put.
    record : dict of tensors
        ``ids`` (b, t), and what `record_losses` returned.

    Raises
    ------
    ValueError
        If the record holds no losses.
    """

    def __init__(self, model: SAEBenchModel, site: EvalSite, record: dict[str, Tensor]) -> None:
        if "final" not in record:
            raise ValueError("record: expected the losses of the model, got activations alone")
        self._blocks = ReplayedBlocks(model, skips=bool(record["skips"]))
        self._site, self._record = site, record

    def measure(self, rows: slice, spliced: Tensor) -> dict[str, Tensor]:
        """Return CE losses (b, t - 1) and KL (b, t) by SAEBench's names, in nats.

        Parameters
        ----------
        rows : slice
            Which rows of the record.
        spliced : floating tensor of shape (b, t, d)
            The site's output there, as the dictionary makes it.
        """
        record = {name: part[rows] for name, part in self._record.items() if part.ndim}
        losses: dict[str, list[Tensor]] = {"ce_loss_with_sae": [], "kl_div_with_sae": []}
        for few in _split(self._blocks.model, record["ids"]):
            ids = record["ids"][few]
            original = self._blocks.run(ids, self._blocks.last, record["final"][few])
            below = record.get("below", spliced)[few]  # read for a place inside a block only
            changed = self._blocks.run_at(ids, self._site, spliced[few], below)
            losses["ce_loss_with_sae"].append(measure_ce(changed, ids))
            losses["kl_div_with_sae"].append(measure_kl(original, changed))
        names = ("ce_loss_without_sae", "ce_loss_with_ablation", "kl_div_with_ablation")
        return {name: torch.cat(parts) for name, parts in losses.items()} | {
            name: record[name] for name in names
        }


class _Ablation:
    """Logits of the model with the site zeroed.

    Nothing of a row's own is left above a block whose output is zero at all its positions, so that
    one row stands for all, unless two rows differ (a place inside a block, which the residual
    stream passes by, or a model whose upper blocks read the tokens again).
    """

    def __init__(
        self, blocks: ReplayedBlocks, site: EvalSite, tokens: Tensor, known: Mapping[str, Tensor]
    ) -> None:
        self._blocks, self._site, self._tokens = blocks, site, tokens
        self._zeros = torch.zeros_like(known[site.hook])
        self._below = known.get(site.below, self._zeros)  # read for a place inside a block only
        first, last = self._run([0, len(tokens) - 1])
        self._shared = first[None] if torch.allclose(first, last, rtol=0, atol=1e-4) else None

    def _run(self, rows: Any) -> Tensor:
        tokens, zeros, below = self._tokens[rows], self._zeros[rows], self._below[rows]
        return self._blocks.run_at(tokens, self._site, zeros, below)

    def run(self, rows: slice) -> Tensor:
        """Return logits (b, t, vocabulary) of some rows."""
        if self._shared is not None:
            return self._shared.expand(len(self._tokens[rows]), -1, -1)
        return self._run(rows)


def _split(model: SAEBenchModel, tokens: Tensor) -> list[slice]:
    """Return slices of rows whose logits are in memory at the same time."""
    rows, length = tokens.shape
    step = max(1, LOGITS // (length * model.cfg.d_vocab))
    return [slice(start, start + step) for start in range(0, rows, step)]


def measure_ce(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the cross entropy of each next token, float32 of shape (b, t - 1), in nats."""
    found = []
    for row, ids in zip(logits, tokens.to(logits.device), strict=True):
        parts = zip(row[:-1].split(CHUNK), ids[1:].split(CHUNK), strict=True)
        losses = [torch.nn.functional.cross_entropy(*part, reduction="none") for part in parts]
        found.append(torch.cat(losses))
    return torch.stack(found)


def measure_kl(original: Tensor, changed: Tensor) -> Tensor:
    """Return KL(original ‖ changed) of logits (b, t, v): float32 of shape (b, t), in nats."""
    found = []
    for before, after in zip(original, changed, strict=True):
        parts = []
        for one, other in zip(before.split(CHUNK), after.split(CHUNK), strict=True):
            log_probs = one.log_softmax(-1)
            lost = log_probs - other.log_softmax(-1)
            parts.append(lost.mul_(log_probs.exp_()).sum(-1))
        found.append(torch.cat(parts))
    return torch.stack(found)
