"""What a dictionary costs its model, as numbers with gradients.

Logits of all tokens of a batch would take gigabytes: those of `CHUNK` tokens are held at a time,
and their gradients are taken back to the output of the last block at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dbksvd.fit.e2e.spliced_model import SplicedModel

CHUNK = 256  # tokens


def find_log_probs(model: SplicedModel, final: Tensor) -> list[Tensor]:
    """Return log-probabilities (CHUNK, V) of next tokens behind outputs (n, d), in chunks."""
    with torch.no_grad():
        return [model.find_logits(chunk).log_softmax(-1) for chunk in final.split(CHUNK)]


def differentiate_kl(
    model: SplicedModel, original: Tensor, changed: Tensor, log_probs: list[Tensor] | None = None
) -> tuple[float, Tensor]:
    """Return the mean KL(original ‖ changed) in nats and its gradient by `changed`, (n, d).

    Parameters
    ----------
    model : SplicedModel
        Gives logits.
    original, changed : tensors of shape (n, d)
        Outputs of the last block; no gradient flows to the first.
    log_probs : list of tensors, optional
        What :func:`find_log_probs` gave for `original`, if it is kept.
    """
    total, gradients = 0.0, []
    chunks = zip(original.split(CHUNK), changed.detach().split(CHUNK), strict=True)
    for place, (before, after) in enumerate(chunks):
        known = find_log_probs(model, before)[0] if log_probs is None else log_probs[place]
        after = after.clone().requires_grad_()
        logits = model.find_logits(after)
        # KL's gradient by the logits is the difference of the two distributions
        with torch.no_grad():
            found = logits.log_softmax(-1)
            total += float(((known - found) * known.exp()).sum())
            difference = found.exp_().sub_(known.exp())
        gradients.append(torch.autograd.grad(logits, after, difference)[0])
    return total / len(changed), torch.cat(gradients) / len(changed)


def measure_downstream(original: Sequence[Tensor], changed: Sequence[Tensor]) -> Tensor:
    """Return the mean over blocks of Σ (a' − a)² / Σ (a − ā)², a scalar.

    Parameters
    ----------
    original, changed : sequences of tensors of shape (n, d)
        Outputs of the blocks behind the site, without and with the dictionary.
    """
    fractions = []
    for before, after in zip(original, changed, strict=True):
        variance = (before - before.mean(dim=0)).square().sum()
        fractions.append((after - before).square().sum() / variance.clamp(min=1e-30))
    return torch.stack(fractions).mean()
