"""The state of a growth, and what every part of the fit does with it: read, code, move the bias.

Functions whose names end in ``_`` change the state that they are given.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dbksvd.base.clock import read_clock
from dbksvd.base.codes import SparseCodes
from dbksvd.base.layout import WEIGHTS_FILE
from dbksvd.base.shapes import Activations, Atoms, Bias
from dbksvd.dictionaries.dictionary import PursuitSettings, encode_with
from dbksvd.dictionaries.saved import read_weights
from dbksvd.fit.grown.plan import FEWEST_ROWS
from dbksvd.fit.grown.settings import GrownSettings
from dbksvd.fit.ksvd.calibration import MOST_TIMES_MEAN
from dbksvd.fit.ksvd.initialise import check_warm_start
from dbksvd.fit.task import FitTask

# Threshold of a pursuit that is to find most of the features in a sample, in that of the growth.
PLAIN = 0.8


@dataclass
class GrowthState:
    """All that changes in a fit.

    Parameters
    ----------
    atoms : tensor of shape (m, d)
        Unit atoms so far.
    bias : tensor of shape (d,)
        Subtracted from samples before they are coded.
    threshold : float
        Least product of an atom with the residual that growth picks, in the unit of the samples;
        the one number here that stays the same.
    pursuit : PursuitSettings
        How samples are coded now.
    is_coactive : bool tensor of shape (n_atoms,)
        Which atoms are co-active with another (:func:`.coactive.find_coactive`); all until that is
        computed.
    started : float
        When the fit began, on :func:`dbksvd.base.clock.read_clock`, in seconds.
    usage : float64 tensor of shape (m,), optional
        Fraction of samples that use each atom, from the last iteration of polishing.
    position : int
        Row of the training samples that is read next.
    seen : int
        Samples read so far, those read again included.
    log : list of dict
        One row per iteration.
    """

    atoms: Atoms
    bias: Bias
    threshold: float
    pursuit: PursuitSettings
    is_coactive: Tensor
    started: float
    usage: Tensor | None = None
    position: int = 0
    seen: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Fit time so far, in seconds."""
        return read_clock(self.atoms.device) - self.started


def begin_growth(task: FitTask, settings: GrownSettings) -> GrowthState:
    """Return the state of a fit that has no atoms yet."""
    started = read_clock(task.device)
    mean = task.train.mean.to(task.device)
    rows = task.train.read(0, min(FEWEST_ROWS, len(task.train))).to(task.device) - mean
    threshold = settings.threshold * float(rows.double().square().mean().sqrt())
    most = min(MOST_TIMES_MEAN * task.k, task.n_atoms)
    return GrowthState(
        atoms=torch.empty(0, task.train.width, dtype=torch.float32, device=task.device),
        bias=torch.zeros_like(mean) if settings.bias == "zero" else mean.clone(),
        threshold=threshold,
        pursuit=PursuitSettings(most, nonnegative=True, threshold=threshold),
        is_coactive=torch.ones(task.n_atoms, dtype=torch.bool, device=task.device),
        started=started,
    )


def take_base_(state: GrowthState, task: FitTask) -> None:
    """Take atoms and bias from the dictionary ``task.base``."""
    assert task.base is not None
    loaded = read_weights(task.base / WEIGHTS_FILE, ("W_dec", "b_dec"))
    atoms = check_warm_start(loaded["W_dec"], task.n_atoms, task.train.width)
    state.atoms, state.bias = atoms.to(task.device), loaded["b_dec"].to(state.bias)


def read_samples_(state: GrowthState, task: FitTask, count: int) -> Activations:
    """Return the next `count` centred samples.

    There are fewer if the data are smaller; after the last sample comes the first one again.
    """
    n = len(task.train)
    count = min(count, n)
    if state.position + count > n:
        state.position = 0
    rows = task.train.read(state.position, state.position + count)
    state.position += count
    state.seen += count
    return rows.to(task.device) - state.bias


def encode(state: GrowthState, x: Activations) -> SparseCodes:
    """Return the codes of centred samples by the pursuit of the state."""
    return encode_with(x, state.atoms, state.pursuit)


def make_plain_pursuit(state: GrowthState) -> PursuitSettings:
    """Return a pursuit without penalties that finds most of the features in a sample."""
    return replace(state.pursuit, threshold=PLAIN * state.threshold, penalties=None)


def move_bias_(state: GrowthState, residual: Activations) -> Bias:
    """Move the bias by the mean of the residual (n, d); return the step."""
    step = residual.mean(dim=0)
    state.bias = state.bias + step
    return step
