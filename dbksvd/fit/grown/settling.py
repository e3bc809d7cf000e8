"""Settling: after growth, atoms without a co-active atom are free to move."""

from __future__ import annotations

from dataclasses import replace

from dbksvd.dictionaries.dictionary import encode_with
from dbksvd.fit.grown.coactive import find_coactive
from dbksvd.fit.grown.iteration import iterate_held_
from dbksvd.fit.grown.plan import MOST_ROWS, plan_settling
from dbksvd.fit.grown.settings import GrownSettings
from dbksvd.fit.grown.state import GrowthState, make_plain_pursuit, read_samples_
from dbksvd.fit.ksvd.calibration import Calibration
from dbksvd.fit.task import FitTask

# Least threshold of settling, in that of the growth: samples may hold fewer than k features.
LEAST = 0.5


def settle_(state: GrowthState, task: FitTask, settings: GrownSettings) -> None:
    """Iterate with atoms free that have no co-active atom; co-active ones follow by the damping.

    A free atom takes on part of its co-active atoms. Where it has none the atom keeps its feature,
    and the dictionary comes to reconstruct as DB-KSVD's does. Samples are coded as there with
    ``sparsity: mean``: k non-zeros on average.
    """
    x = task.train.read(0, min(MOST_ROWS, len(task.train))).to(task.device) - state.bias
    codes = encode_with(x, state.atoms, make_plain_pursuit(state))
    state.is_coactive = find_coactive(codes)
    # a few free atoms among many held ones are not worth a single iteration
    count = int(settings.settle_iter * float((~state.is_coactive).double().mean()))
    growing = state.pursuit
    orthogonal = replace(growing, method="ols")
    calibration = Calibration(x)
    for size in plan_settling(task.n_atoms, task.k, count):
        found = calibration.follow(state.log, state.atoms, task.k, orthogonal)
        least = LEAST * state.threshold
        state.pursuit = replace(found, threshold=max(found.threshold, least))
        x = read_samples_(state, task, size)
        iterate_held_(state, x, task.seed, held=state.is_coactive, damping=settings.damping)
    state.pursuit = growing
