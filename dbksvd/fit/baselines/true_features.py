"""The true features as atoms: the ceiling of a dictionary where what made the samples is known."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from dbksvd.base.work import Work
from dbksvd.fit.baselines.coded import CodedSettings, count_coding, count_making
from dbksvd.fit.method import FitSizes, Method

if TYPE_CHECKING:
    from dbksvd.fit.task import FitResult, FitTask


class TrueFeaturesSettings(CodedSettings):
    """The features of the generative model as atoms, its bias as bias; at the site synthetic."""

    algorithm: Literal["true_features"] = "true_features"
    """The method's name in the registry."""


def fit(task: FitTask) -> FitResult:
    """Take the first features of the generative model as atoms, coded by a pursuit.

    What it misses in a score is what the pursuit owes, or, with fewer atoms than features, what
    must be missed: SynthSAEBench's features are in the order of how often they are asked to fire.

    Parameters
    ----------
    task : FitTask
        ``truth`` is the folder of the generative model.

    Raises
    ------
    ValueError
        If there are fewer features than atoms.
    """
    from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
    from dbksvd.fit.task import FitResult
    from dbksvd.synthetic.models import load_model

    assert task.truth is not None  # the workflow gives one, as the entry asks for it
    started = time.perf_counter()
    model = load_model(task.truth)
    if len(model.features) < task.n_atoms:
        raise ValueError(
            f"n_atoms: expected at most the {len(model.features)} features, got {task.n_atoms}"
        )
    settings = PursuitSettings(
        k=task.k, method=task.settings.pursuit, nonnegative=task.settings.nonnegative
    )
    atoms = model.features[: task.n_atoms].clone()
    dictionary = Dictionary(atoms, model.bias.clone(), settings, task.metadata)
    seconds = time.perf_counter() - started
    summary = {"seconds": seconds, "samples_seen": 0, "iterations": 0}
    return FitResult(dictionary, [{"seconds": seconds, "samples_seen": 0}], "closed form", summary)


def _plan(_settings: TrueFeaturesSettings, sizes: FitSizes) -> Work:
    return count_making(sizes)


METHOD = Method(
    settings=TrueFeaturesSettings,
    fit=fit,
    plan=_plan,
    coding=count_coding,
    label=lambda _settings: "true features",
    is_control=True,
    needs_truth=True,
)
