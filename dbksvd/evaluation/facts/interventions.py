"""Masks that move one attribute of an entity into another and leave the others as they are."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from dbksvd.evaluation.facts.blocks import CutModel, Recorded

if TYPE_CHECKING:
    from dbksvd.evaluation.facts.bases import Coded, Neurons, Rotation

Item = TypeVar("Item")
HOT, COLD = 10.0, 0.1  # temperatures of a mask as training begins and ends


@dataclass(frozen=True)
class Training:
    """How masks are trained.

    Parameters
    ----------
    epochs : int
        Passes over the pairs.
    batch_size : int
        Pairs of a step; one half moves the attribute, the other keeps the others.
    mask_rate, basis_rate : float
        Adam's learning rates of the mask, and of the basis where it has weights.
    seed : int
        Decides the order of pairs.
    """

    epochs: int
    batch_size: int
    mask_rate: float
    basis_rate: float
    seed: int


def draw_pairs(answers: Tensor, rows: Sequence[int], count: int, seed: int) -> Tensor:
    """Return (base, source) pairs of rows whose answers differ, int64 of shape (pairs, 2).

    Parameters
    ----------
    answers : int64 tensor of shape (n,)
        The answer of each row.
    rows : sequence of int
        Rows that may stand in a pair.
    count : int
        Most pairs; drawn without repeats where there are more.
    seed : int
        Decides which.
    """
    known = answers.tolist()
    found = [(base, source) for base in rows for source in rows if known[base] != known[source]]
    chosen = random.Random(seed).sample(found, min(count, len(found)))
    return torch.tensor(chosen, dtype=torch.int64).reshape(-1, 2)


def train_mask(
    cut: CutModel,
    prompts: Mapping[str, Recorded],
    pairs: Mapping[str, Tensor],
    attribute: str,
    basis: Neurons | Rotation | Coded,
    training: Training,
) -> Tensor:
    """Train a mask, and the basis where it has weights, to move one attribute only.

    The loss is the cross entropy of the source's answer on prompts that ask for the attribute, and
    of the base's answer on those that ask for another, in equal parts. The temperature falls
    linearly.

    Parameters
    ----------
    cut : CutModel
        The model.
    prompts : mapping of str to Recorded
        Prompts of each attribute, of the same entities in the same order.
    pairs : mapping of str to int64 tensor of shape (pairs, 2)
        Pairs to train on, by the attribute whose answers differ (:func:`draw_pairs`).
    attribute : str
        Which is moved.
    basis : Neurons, Rotation or Coded
        Where the mask lies.
    training : Training
        Epochs, sizes, rates.

    Returns
    -------
    float32 tensor of shape (width,), the share of each coordinate taken from the source.
    """
    mask = nn.Parameter(torch.zeros(basis.width, device=cut.device))
    groups = [{"params": [mask], "lr": training.mask_rate}]
    if weights := list(basis.parameters()):
        groups.append({"params": weights, "lr": training.basis_rate})
    optimiser = torch.optim.Adam(groups)
    draw = random.Random(training.seed)
    half = max(1, training.batch_size // 2)
    others = [name for name in prompts if name != attribute]
    steps = training.epochs * -(-len(pairs[attribute]) // half)
    kept: list[tuple[str, int]] = []
    moved: list[int] = []
    for step in range(steps):
        if not moved:
            moved = _shuffle(range(len(pairs[attribute])), draw)
        if len(kept) < half:
            kept += _shuffle([(o, p) for o in others for p in range(len(pairs[o]))], draw)
        temperature = HOT + (COLD - HOT) * step / max(1, steps - 1)
        share = torch.sigmoid(mask / temperature)
        moved, chosen = moved[half:], pairs[attribute][moved[:half]]
        loss = _measure_loss(cut, prompts[attribute], chosen, basis, share, column=1)
        kept, taken = kept[half:], kept[:half]
        for other in others:
            chosen = pairs[other][[place for name, place in taken if name == other]]
            if len(chosen):
                own = _measure_loss(cut, prompts[other], chosen, basis, share, column=0)
                loss = loss + own * len(chosen) / len(taken)
        optimiser.zero_grad()
        (loss / 2).backward()
        optimiser.step()
    return torch.sigmoid(mask.detach() / COLD)


@torch.no_grad()
def measure_share(
    cut: CutModel,
    recorded: Recorded,
    pairs: Tensor,
    basis: nn.Module,
    share: Tensor,
    *,
    column: int,
) -> float:
    """Return the share of pairs that are answered as the base (column 0) or the source (1) is."""
    right = 0
    for chosen in pairs.split(cut.batch_size):
        logits, answers = _answer(cut, recorded, chosen, basis, share, column)
        right += int((logits.argmax(dim=1) == answers).sum())
    return right / len(pairs)


def _measure_loss(
    cut: CutModel,
    recorded: Recorded,
    pairs: Tensor,
    basis: nn.Module,
    share: Tensor,
    *,
    column: int,
) -> Tensor:
    logits, answers = _answer(cut, recorded, pairs, basis, share, column)
    return nn.functional.cross_entropy(logits, answers)


def _answer(
    cut: CutModel, recorded: Recorded, pairs: Tensor, basis: nn.Module, share: Tensor, column: int
) -> tuple[Tensor, Tensor]:
    """Return logits (n, V) of bases with a share of their sources, and the answers wanted (n,)."""
    entities = recorded.entities.to(cut.device)
    mixed = basis(entities[pairs[:, 0]], entities[pairs[:, 1]], share)
    logits = cut.run_above(recorded.select(pairs[:, 0]), mixed)
    return logits, recorded.answers[pairs[:, column]].to(cut.device)


def _shuffle(items: Sequence[Item], draw: random.Random) -> list[Item]:
    return draw.sample(list(items), len(items))
