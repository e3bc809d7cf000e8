"""What a dictionary costs its model on held-out text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from dbksvd.dictionaries.dictionary import SparseDictionary
from dbksvd.fit.e2e.losses import CHUNK
from dbksvd.fit.e2e.spliced_model import SplicedModel
from dbksvd.fit.e2e.texts import TokenBatch


@torch.no_grad()
def measure_cost(
    model: SplicedModel, batches: Sequence[TokenBatch], dictionary: SparseDictionary
) -> dict[str, float]:
    """Return means over the places that are spliced and have a next token of text, in nats.

    Parameters
    ----------
    model : SplicedModel
        The model.
    batches : sequence of TokenBatch
        Held-out text.
    dictionary : SparseDictionary
        Goes into the model.

    Returns
    -------
    dict of str to float
        ``ce_loss`` with the dictionary inside, ``ce_loss_original`` without, and ``kl``.

    Raises
    ------
    ValueError
        If there is no such place.
    """
    sums, count = torch.zeros(3, dtype=torch.float64), 0
    for batch in batches:
        original = model.read(batch)
        rows = original.site[original.spliced]
        found = dictionary.decode(dictionary.encode(rows)) if len(rows) else rows
        changed = model.run_above(batch, original, found)[-1]
        wanted = _find_next(batch)[original.spliced.cpu()].to(changed.device)
        scored = wanted >= 0
        if not scored.any():
            continue
        count += int(scored.sum())
        parts = (original.later[-1][scored], changed[scored], wanted[scored])
        for before, after, ids in zip(*(part.split(CHUNK) for part in parts), strict=True):
            sums += _compare(model, before, after, ids)
    if not count:
        raise ValueError("heldout_tokens: expected tokens with a next one, got none")
    names = ("ce_loss", "ce_loss_original", "kl")
    return dict(zip(names, (sums / count).tolist(), strict=True))


def _find_next(batch: TokenBatch) -> Tensor:
    """Return the next token of each place (b, t), -1 where that is no text."""
    found = torch.full_like(batch.ids, -1)
    found[:, :-1] = batch.ids[:, 1:].masked_fill(~batch.is_text[:, 1:], -1)
    return found


def _compare(model: SplicedModel, before: Tensor, after: Tensor, ids: Tensor) -> Tensor:
    """Return sums of both cross entropies and of KL, float64 of shape (3,)."""
    first = model.find_logits(before).log_softmax(-1)
    second = model.find_logits(after).log_softmax(-1)
    kl = ((first - second) * first.exp()).sum()
    losses = [cross_entropy(each, ids, reduction="sum") for each in (second, first)]
    return torch.stack([*losses, kl]).double().cpu()
