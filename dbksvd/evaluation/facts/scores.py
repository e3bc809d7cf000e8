"""How far a basis moves one attribute and keeps the others, on entities it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from dbksvd.evaluation.facts.bases import Neurons
from dbksvd.evaluation.facts.interventions import Training, draw_pairs, measure_share, train_mask

if TYPE_CHECKING:
    from torch import Tensor

    from dbksvd.evaluation.facts.bases import Coded, Rotation
    from dbksvd.evaluation.facts.blocks import CutModel
    from dbksvd.evaluation.facts.known import Known

CAUSE, ISOLATION, BOTH = "cause_score", "isolation_score", "disentanglement_score"
Scores = dict[str, dict[str, float]]


def score_basis(
    cut: CutModel,
    known: Known,
    make: Callable[[], Neurons | Rotation | Coded],
    training: Training,
    pairs: int,
) -> Scores:
    """Train a mask for each attribute and score it.

    Parameters
    ----------
    cut : CutModel
        The model.
    known : Known
        Prompts of the entities it knows, split.
    make : callable
        Returns a fresh basis, one for each attribute.
    training : Training
        How masks are trained.
    pairs : int
        Most pairs of entities, of each attribute and split.

    Returns
    -------
    dict of str to dict
        For each attribute the share of test pairs in which it becomes that of the source
        (`CAUSE`), in which the others stay those of the base (`ISOLATION`), and their mean
        (`BOTH`).
    """
    train = _draw(known, known.train, pairs, training.seed)
    scores = {}
    for attribute in known.prompts:
        basis = make().to(cut.device)
        share = train_mask(cut, known.prompts, train, attribute, basis, training)
        scores[attribute] = _score(cut, known, attribute, basis, share, pairs, training.seed)
    return scores


def score_full_patch(cut: CutModel, known: Known, width: int, pairs: int, seed: int) -> Scores:
    """Return the scores of putting the source's whole activation (d,) in the base's place."""
    basis, share = Neurons(width), torch.ones(width, device=cut.device)
    return {name: _score(cut, known, name, basis, share, pairs, seed) for name in known.prompts}


def measure_spliced(cut: CutModel, known: Known, basis: Coded) -> float:
    """Return how often answers stay right as a dictionary decodes what it codes, unchanged."""
    nothing = torch.zeros(basis.width, device=cut.device)
    found = []
    for recorded in known.prompts.values():
        rows = torch.arange(len(recorded.ids))
        same = torch.stack([rows, rows], dim=1)
        found.append(measure_share(cut, recorded, same, basis, nothing, column=0))
    return fmean(found)


def summarise(scores: Mapping[str, Mapping[str, float]], before: str = "") -> dict[str, float]:
    """Return the means over attributes, `before` in front of their names."""
    return {f"{before}{name}": fmean(own[name] for own in scores.values()) for name in _NAMES}


_NAMES = (CAUSE, ISOLATION, BOTH)


def _score(
    cut: CutModel,
    known: Known,
    attribute: str,
    basis: Neurons | Rotation | Coded,
    share: Tensor,
    pairs: int,
    seed: int,
) -> dict[str, float]:
    test = _draw(known, known.test, pairs, seed)
    measured = {
        name: measure_share(cut, own, test[name], basis, share, column=int(name == attribute))
        for name, own in known.prompts.items()
    }
    cause = measured.pop(attribute)
    isolation = fmean(measured.values())
    return {CAUSE: cause, ISOLATION: isolation, BOTH: (cause + isolation) / 2}


def _draw(known: Known, rows: list[int], pairs: int, seed: int) -> dict[str, Tensor]:
    """Return pairs of some entities by the attribute in which they differ."""
    return {name: draw_pairs(own.answers, rows, pairs, seed) for name, own in known.prompts.items()}
