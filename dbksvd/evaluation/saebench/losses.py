"""CE loss and KL with a dictionary inside a causal model, from what no dictionary changes.

SAEBench's core runs the whole model three times for each dictionary: as it is, with the site
zeroed, and with the dictionary inside. The first two are the same for all dictionaries. Their
losses are recorded, with the output of the last block, which the original logits are made of anew:
the logits themselves would take gigabytes. For a dictionary only the blocks above the site are run.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dbksvd.evaluation.saebench.model import SAEBenchModel
from dbksvd.evaluation.saebench.replayed_blocks import ReplayedBlocks

LOGITS = 2**25  # of one pass: 128 MiB
CHUNK = 128  # tokens whose logits are compared at a time


def record_losses(
    model: SAEBenchModel, layer: int, tokens: Tensor, activations: Tensor, final: Tensor
) -> dict[str, Tensor]:
    """Return what `RecordedLosses` needs beside tokens and activations.

    Parameters
    ----------
    model : SAEBenchModel
        A causal model.
    layer : int
        The block whose output is the site, counted from 1.
    tokens : int64 tensor of shape (b, t)
        Rows of tokens, none of them padded.
    activations, final : float32 tensors of shape (b, t, d)
        Outputs of that block and of the last one.

    Returns
    -------
    dict of tensors
        ``final``; ``ce_loss_without_sae`` and ``ce_loss_with_ablation`` (b, t - 1) and
        ``kl_div_with_ablation`` (b, t), in nats; ``skips`` (a bool), whether blocks may be skipped.
    """
    few = slice(0, 2)
    blocks = ReplayedBlocks(model)
    known = {layer: activations[few], blocks.last: final[few]}
    blocks.skips = blocks.check(tokens[few], known)
    ablated = _Ablation(blocks, layer, tokens, activations)
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
    return recorded | {"final": final.cpu(), "skips": torch.tensor(blocks.skips)}


class RecordedLosses:
    """Losses of a causal model with a dictionary inside, beside the recorded ones.

    Parameters
    ----------
    model : SAEBenchModel
        The causal model.
    layer : int
        The block whose output is the site, counted from 1.
    record : dict of tensors
        ``ids`` (b, t), and what `record_losses` returned.

    Raises
    ------
    ValueError
        If the record holds no losses.
    """

    def __init__(self, model: SAEBenchModel, layer: int, record: dict[str, Tensor]) -> None:
        if "final" not in record:
            raise ValueError("record: expected the losses of the model, got activations alone")
        self._blocks = ReplayedBlocks(model, skips=bool(record["skips"]))
        self._layer, self._record = layer, record

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
            changed = self._blocks.run(ids, self._layer, spliced[few])
            losses["ce_loss_with_sae"].append(measure_ce(changed, ids))
            losses["kl_div_with_sae"].append(measure_kl(original, changed))
        names = ("ce_loss_without_sae", "ce_loss_with_ablation", "kl_div_with_ablation")
        return {name: torch.cat(parts) for name, parts in losses.items()} | {
            name: record[name] for name in names
        }


class _Ablation:
    """Logits of the model with the site zeroed.

    Nothing of a row's own is left above a site that is zero at all its positions, so that one row
    stands for all, unless two rows differ (a model whose upper blocks read the tokens again).
    """

    def __init__(
        self, blocks: ReplayedBlocks, layer: int, tokens: Tensor, activations: Tensor
    ) -> None:
        self._blocks, self._layer, self._tokens = blocks, layer, tokens
        self._zeros = torch.zeros_like(activations)
        ends = [0, len(tokens) - 1]
        first, last = blocks.run(tokens[ends], layer, self._zeros[ends])
        self._shared = first[None] if torch.allclose(first, last, rtol=0, atol=1e-4) else None

    def run(self, rows: slice) -> Tensor:
        """Return logits (b, t, vocabulary) of some rows."""
        if self._shared is not None:
            return self._shared.expand(len(self._tokens[rows]), -1, -1)
        return self._blocks.run(self._tokens[rows], self._layer, self._zeros[rows])


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
